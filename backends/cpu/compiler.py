"""Hands out native kernels, symbols of the library that comes with lostwax. Compiles nothing."""

from __future__ import annotations

from pathlib import Path

from lostwax.backends.cpu.library import libraries, library_bytes
from lostwax.backends.kernel_compiler import KernelCompileError
from lostwax.ir.contract.kernel import CompiledKernel, KernelSource
from lostwax.ir.contract.target import Target


class CpuCompiler:
    """A KernelCompiler for one instruction set."""

    def __init__(self, target: Target) -> None:
        self._target = target

    def compile(self, source: KernelSource, folder: Path) -> CompiledKernel:
        """Put the library into `folder` under its content's name and describe one symbol of it."""
        if source.language != "cpp" or self._target.arch not in libraries():
            raise KernelCompileError(
                f"{source.symbol} is written in {source.language} for {self._target.arch}, for"
                " which no library of native kernels comes with lostwax: its lowering needs a"
                " predicate"
            )
        library = libraries()[self._target.arch]
        name = f"native-{library.digest[:16]}.so"
        (folder / name).write_bytes(library_bytes(self._target.arch))
        return CompiledKernel(
            binary=name,
            symbol=source.symbol,
            digest=library.digest,
            num_warps=1,
            shared_bytes=0,
            registers=0,
        )

    def toolchain(self) -> dict[str, str]:
        """The compiler that built the library; none is needed here."""
        library = libraries().get(self._target.arch)
        if library is None:
            return {}
        name, version = library.compiler.split(" ")
        return {f"kernels built by {name}": version}
