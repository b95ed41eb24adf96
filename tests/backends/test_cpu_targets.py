"""The CPU's targets: what each asks of a processor, and which kernels its artifacts take there."""

from __future__ import annotations

import platform
import struct
from pathlib import Path

import pytest

from lostwax.backends.cpu import pool, presence, processor
from lostwax.backends.cpu.build_library import BUILDS
from lostwax.backends.cpu.compiler import CpuCompiler
from lostwax.backends.cpu.library import libraries, library_bytes
from lostwax.backends.cpu.pool import NativePool
from lostwax.backends.cpu.target import CPU, CPU_AARCH64, CPU_V3, CPU_V4, TARGETS
from lostwax.backends.runtime.driver import DeviceUnavailable
from lostwax.backends.runtime.torch_build import TorchBuild
from lostwax.ir.contract.kernel import KernelSource
from lostwax.ir.contract.target import Target

V3 = set(BUILDS["x86-64-v3"].least.features)
V4 = V3 | set(BUILDS["x86-64-v3"].features("_avx512"))
V8 = set(BUILDS["armv8.2-a"].least.features)
TORCH = TorchBuild("9", None, None)
ELF_MACHINES = {"x86-64-v3": 62, "armv8.2-a": 183}  # EM_X86_64, EM_AARCH64


def _machine(monkeypatch: pytest.MonkeyPatch, machine: str, features: set[str]) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    for module, name in ((presence, "processor_features"), (pool, "_processor_features")):
        monkeypatch.setattr(module, name, lambda: features)


@pytest.mark.parametrize(
    ("machine", "features", "fit"),
    [
        ("x86_64", V4 | {"sse"}, ["cpu", "cpu-x86-64-v3", "cpu-x86-64-v4"]),
        ("x86_64", V3, ["cpu", "cpu-x86-64-v3"]),
        ("x86_64", V3 | {"avx512f"}, ["cpu", "cpu-x86-64-v3"]),
        ("x86_64", V3 - {"f16c"}, list[str]()),
        ("aarch64", V8 | {"asimddp"}, ["cpu-aarch64"]),
        ("aarch64", V8 - {"atomics"}, list[str]()),
        ("riscv64", set[str](), list[str]()),
    ],
)
def test_a_target_runs_where_its_kernels_do(
    monkeypatch: pytest.MonkeyPatch, machine: str, features: set[str], fit: list[str]
) -> None:
    """Elsewhere it is refused before anything is compiled, by what is lacking and what fits."""
    _machine(monkeypatch, machine, features)
    for target in TARGETS:
        if target.name in fit:
            assert presence.presence(target, TORCH) == "on cpu"
            continue
        with pytest.raises(DeviceUnavailable, match=f"target {target.name} (needs|is for)") as told:
            presence.presence(target, TORCH)
        remedy = f"--target {' or '.join(fit)}" if fit else "none of lostwax's targets"
        assert remedy in str(told.value)


def test_a_lacking_feature_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    _machine(monkeypatch, "x86_64", V4 - {"avx512vl"})
    with pytest.raises(
        DeviceUnavailable, match=r"lacks avx512vl: .* --target cpu or cpu-x86-64-v3"
    ):
        presence.presence(CPU_V4, TORCH)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="takes the library apart as x86-64 does")
@pytest.mark.parametrize(
    ("target", "features", "suffix"),
    [(CPU, V4, "_avx512"), (CPU, V3, ""), (CPU_V3, V4, ""), (CPU_V4, V4, "_avx512")],
)
def test_which_kernels_an_artifact_takes(
    monkeypatch: pytest.MonkeyPatch, target: Target, features: set[str], suffix: str
) -> None:
    """`cpu` the best that are here; the others always the same, so that their bits are, too."""
    if suffix and not processor.processor_features() >= V4:
        pytest.skip("this processor has no AVX-512")
    monkeypatch.setattr(pool, "_processor_features", lambda: features)
    own = NativePool(target.arch, library_bytes(target.arch))
    asked: list[str] = []

    class Library:
        def __getattr__(self, name: str) -> object:
            asked.append(name)
            raise AttributeError(name)

    monkeypatch.setattr(own, "_library", Library())
    with pytest.raises(ValueError, match="add_f32"):
        own.kernel("add_f32")
    assert asked == ["add_f32" + suffix]


def test_a_library_without_its_processor_is_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever `presence` said."""
    monkeypatch.setattr(pool, "_loaded", lambda content: pytest.fail("it was loaded"))  # pyright: ignore[reportUnknownLambdaType]
    monkeypatch.setattr(pool, "_processor_features", lambda: V3)
    for target in (CPU_V4, CPU_AARCH64):
        with pytest.raises(DeviceUnavailable, match=f"for {target.arch}, and this processor lacks"):
            NativePool(target.arch, library_bytes(target.arch))


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_an_artifact_brings_the_library_of_its_processor(target: Target, tmp_path: Path) -> None:
    source = KernelSource(language="cpp", path="native.cpp", symbol="add_f32")
    kernel = CpuCompiler(target).compile(source, tmp_path)
    content = (tmp_path / kernel.binary).read_bytes()
    assert content[:4] == b"\x7fELF"
    (machine,) = struct.unpack_from("<H", content, 18)
    assert machine == ELF_MACHINES[libraries()[target.arch].file.removesuffix(".so")]


def test_what_a_processor_has_is_asked_of_its_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """On aarch64 by getauxval, as /proc/cpuinfo under an emulator is another machine's."""

    class Getauxval:
        restype: object = None

        def __call__(self, entry: object) -> int:
            assert self.restype is processor.ctypes.c_ulong
            return 1 << 63 | 1 << 8 | 1 << 1 | 1  # atomics, asimd, fp and one that has no name here

    class Process:
        getauxval = Getauxval()

    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(processor.ctypes, "CDLL", lambda _: Process())  # pyright: ignore[reportUnknownLambdaType]
    assert processor.processor_features() == {"fp", "asimd", "atomics"}
    assert set(processor.HWCAP) >= V8
