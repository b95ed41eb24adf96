"""The CPU's native kernels for lowerings that tests run by themselves, without an artifact; and
compiles without them, for tests that plant faults in torch's operators."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

from lostwax.backends.cpu.compiler import CpuCompiler
from lostwax.backends.cpu.driver import CpuDriver
from lostwax.backends.cpu.library import library_bytes
from lostwax.backends.cpu.lowerings import lowerings
from lostwax.backends.cpu.target import CPU
from lostwax.backends.lowering import Lowering
from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.ir.contract.kernel import CompiledKernel, KernelSource
from lostwax.ir.contract.target import Target

NATIVE = "cpu_native_"


def build_native(source: KernelSource) -> CompiledKernel:
    """One symbol of the library, as a compile describes it."""
    with TemporaryDirectory() as folder:
        return CpuCompiler(CPU).compile(source, Path(folder))


def native_driver() -> CpuDriver:
    """A driver that has the library, whatever the launches are of."""
    kernel = build_native(KernelSource(language="cpp", path="native.cpp", symbol="add_f32"))
    return CpuDriver(CPU, lambda _: library_bytes(CPU.arch), {kernel.binary: kernel})


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
