"""The CPU's native kernels for lowerings that tests run by themselves, without an artifact; and
compiles without them, for tests that plant faults in torch's operators."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np
import pytest
from numpy.typing import NDArray

from lostwax.backends.cpu import pool
from lostwax.backends.cpu.compiler import CpuCompiler
from lostwax.backends.cpu.driver import CpuDriver
from lostwax.backends.cpu.library import libraries, library_bytes
from lostwax.backends.cpu.lowerings import lowerings
from lostwax.backends.cpu.pool import NativeLaunch, NativePool, StepList
from lostwax.backends.cpu.target import CPU
from lostwax.backends.lowering import Lowering
from lostwax.backends.proof.plain_match import PlainMatch, Value
from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.backends.runtime.fenced_buffers import FencedBuffers
from lostwax.backends.runtime.kernel_parameters import PackedParameters
from lostwax.ir.contract.kernel import CompiledKernel, KernelSource
from lostwax.ir.contract.parameter import Null, Scalar
from lostwax.ir.contract.program import Bucket
from lostwax.ir.contract.target import Target

NATIVE = "cpu_native_"
SCRATCH = 1 << 18
"""Bytes, as much as any kernel here takes."""


def build_native(source: KernelSource) -> CompiledKernel:
    """One symbol of the library, as a compile describes it."""
    with TemporaryDirectory() as folder:
        return CpuCompiler(CPU).compile(source, Path(folder))


def native_driver() -> CpuDriver:
    """A driver that has the library, whatever the launches are of."""
    kernel = build_native(KernelSource(language="cpp", path="native.cpp", symbol="add_f32"))
    return CpuDriver(CPU, lambda _: library_bytes(CPU.arch), {kernel.binary: kernel})


LEVELS = [*libraries()[CPU.arch].more, ""]
"""Instruction sets that the library was built for, by the suffix of their kernels' symbols."""


def pool_of(level: str, monkeypatch: pytest.MonkeyPatch) -> NativePool:
    """The library's kernels for one of `LEVELS`; skips where this processor lacks it."""
    library, here = libraries()[CPU.arch], pool._processor_features()  # pyright: ignore[reportPrivateUsage]
    wanted = {*library.features, *library.more.get(level, ())}
    if missing := wanted - here:
        pytest.skip(f"this processor lacks {', '.join(sorted(missing))}")
    monkeypatch.setattr(pool, "_processor_features", lambda: set(wanted))
    own = NativePool(CPU.arch, library_bytes(CPU.arch))
    if own.suffix != level:
        pytest.skip("the system lets no process use tiles")
    return own


_DTYPES = {"float32": "f32", "int32": "i32"}


def run_native(
    driver: CpuDriver,
    lowering: str,
    given: Mapping[str, np.ndarray],
    results: Mapping[str, Value],
    real: int | None = None,
) -> dict[str, np.ndarray]:
    """The results of one of the CPU's lowerings over the rows of a head, `real` of which are (by
    default all). What it leaves alone is NaN, or -1. AssertionError for a write beside a buffer."""
    (rows,) = {value.shape[0] for value in results.values()}
    values = {name: Value(array.shape, _DTYPES[array.dtype.name]) for name, array in given.items()}
    (chosen,) = (low for low in lowerings(CPU) if low.name == lowering)
    with TemporaryDirectory() as folder:
        match = PlainMatch(
            CPU, Bucket(rows=rows), values | dict(results), {}, CpuCompiler(CPU), Path(folder)
        )
        launches = match.emit(chosen)
    count = np.array([rows if real is None else real], np.int32)
    buffers = FencedBuffers(driver, {**given, "num_rows": count}, launches)
    bound = [driver.bind(launch, buffers.resolve) for launch in launches]
    for _, thunk in driver.joined(bound):
        thunk()
    buffers.check_left()
    return {name: buffers.read(match.view(name)) for name in results}


def driver_of(artifact: Path) -> CpuDriver:
    """A driver for the launches of an artifact for the CPU."""
    reader = ArtifactReader(artifact)
    compiled = {kernel.binary: kernel for kernel in reader.manifest.kernels}
    return CpuDriver(reader.manifest.target, reader.kernel, compiled)


@contextmanager
def state_on_the_host() -> Generator[None]:
    """Compiles for the CPU leave the step around the layers to numpy meanwhile."""

    def nothing(*_: object) -> None:
        return None

    with patch("lostwax.backends.cpu.lowerings.native_step.native_step", nothing):
        yield


@contextmanager
def torch_alone() -> Generator[None]:
    """Compiles for the CPU take torch's operators meanwhile, and numpy around the layers."""

    def without(target: Target) -> tuple[Lowering, ...]:
        return tuple(low for low in lowerings(target) if not low.name.startswith(NATIVE))

    with patch("lostwax.backends.cpu.lowerings.lowerings", without), state_on_the_host():
        yield


PARKED = np.float32(-77.25)
"""What an output holds where nothing may be written."""


def run_kernel(
    native: NativePool, symbol: str, *arguments: NDArray[np.generic] | float | None
) -> None:
    """Run one kernel over arrays and numbers."""
    packed = PackedParameters([_parameter(each) for each in arguments])
    launch = NativeLaunch(native.kernel(symbol), packed, SCRATCH, arguments)
    StepList(native, (launch,))()


def _parameter(argument: NDArray[np.generic] | float | None) -> int | Scalar | Null:
    match argument:
        case None:
            return Null()
        case int() | float():
            return Scalar("i32" if isinstance(argument, int) else "f32", argument)
        case array:
            return array.ctypes.data
