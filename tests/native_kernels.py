"""The CPU's native kernels for lowerings that tests run by themselves, without an artifact."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from lostwax.backends.cpu.compiler import CpuCompiler
from lostwax.backends.cpu.driver import CpuDriver
from lostwax.backends.cpu.library import library_bytes
from lostwax.backends.cpu.target import CPU
from lostwax.ir.contract.kernel import CompiledKernel, KernelSource


def build_native(source: KernelSource) -> CompiledKernel:
    """One symbol of the library, as a compile describes it."""
    with TemporaryDirectory() as folder:
        return CpuCompiler(CPU).compile(source, Path(folder))


def native_driver() -> CpuDriver:
    """A driver that has the library, whatever the launches are of."""
    kernel = build_native(KernelSource(language="cpp", path="native.cpp", symbol="add_f32"))
    return CpuDriver(CPU, lambda _: library_bytes(CPU.arch), {kernel.binary: kernel})
