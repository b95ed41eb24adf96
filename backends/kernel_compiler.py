"""What a target's kernel compiler gives: a device binary for a source, without the device."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from lostwax.ir.contract.kernel import CompiledKernel, KernelSource


class KernelCompileError(RuntimeError):
    """A kernel did not compile, or its compiler is not installed; the message says which extra."""


class KernelCompiler(Protocol):
    """Compiles kernels ahead of time. The same source gives the same bytes in any folder."""

    def compile(self, source: KernelSource, folder: Path) -> CompiledKernel:
        """Write the binary into `folder` under its content's name and describe it."""
        ...

    def toolchain(self) -> dict[str, str]:
        """Compiler names and versions, for the manifest."""
        ...
