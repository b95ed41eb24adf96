"""Compiles each distinct kernel of an artifact once. Knows no program."""

from __future__ import annotations

from pathlib import Path

import msgspec

from lostwax.backends.kernel_compiler import KernelCompileError, KernelCompiler
from lostwax.backends.registry import Backend
from lostwax.ir.contract.kernel import CompiledKernel, KernelSource
from lostwax.ir.contract.target import Target


class KernelBuilder:
    """Kernels by source; the compiler is loaded when the first kernel is asked for."""

    def __init__(self, backend: Backend, target: Target, folder: Path) -> None:
        self._backend = backend
        self._target = target
        self._folder = folder
        self._compiler: KernelCompiler | None = None
        self._built: dict[str, CompiledKernel] = {}

    def build(self, source: KernelSource) -> CompiledKernel:
        """The compiled kernel of a source; KernelCompileError where the target compiles none."""
        key = source.digest()
        if key not in self._built:
            if self._compiler is None:
                if self._backend.compiler is None:
                    raise KernelCompileError(
                        f"target {self._target.name} has no kernel compiler, but a lowering asks"
                        f" for {source.symbol}"
                    )
                self._compiler = self._backend.load(self._backend.compiler)(self._target)
            assert self._compiler is not None
            self._folder.mkdir(parents=True, exist_ok=True)
            compiled = self._compiler.compile(source, self._folder)
            self._built[key] = msgspec.structs.replace(compiled, source=key)
        return self._built[key]

    @property
    def kernels(self) -> tuple[CompiledKernel, ...]:
        """Everything built, by file name."""
        unique = {k.binary: k for k in self._built.values()}
        return tuple(unique[name] for name in sorted(unique))

    @property
    def toolchain(self) -> dict[str, str]:
        """The compilers that ran."""
        return self._compiler.toolchain() if self._compiler else {}
