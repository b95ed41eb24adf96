"""Compiles each distinct kernel of an artifact once. Knows no program."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import msgspec

from lostwax.backends.kernel_compiler import KernelCompileError, KernelCompiler
from lostwax.backends.records.source_digest import kernel_code, kernel_files
from lostwax.backends.registry import Backend
from lostwax.ir.contract.canonical import canonical
from lostwax.ir.contract.kernel import CompiledKernel, KernelNote, KernelSource
from lostwax.ir.contract.target import Target


class KernelBuilder:
    """Kernels by source; the compiler is loaded when the first kernel is asked for."""

    def __init__(self, backend: Backend, target: Target, folder: Path) -> None:
        self._backend = backend
        self._target = target
        self._folder = folder
        self._compiler: KernelCompiler | None = None
        self._built: dict[str, CompiledKernel] = {}
        self._sources: dict[str, KernelSource] = {}

    def build(self, source: KernelSource) -> CompiledKernel:
        """The compiled kernel of a source; KernelCompileError where the target compiles none.

        One at a time: CPython 3.11's ast.parse, which Triton calls, breaks when two threads are in
        it at once ("AST constructor recursion depth mismatch").
        """
        key = source.digest()
        if key not in self._built:
            self._sources[key] = source
            compiled = self._open_compiler(source).compile(source, self._folder)
            code = kernel_code(source, self._target)
            self._built[key] = msgspec.structs.replace(compiled, source=key, code=code)
        return self._built[key]

    def _open_compiler(self, source: KernelSource) -> KernelCompiler:
        if self._compiler is None:
            if self._backend.compiler is None:
                raise KernelCompileError(
                    f"target {self._target.name} has no kernel compiler, but a lowering asks"
                    f" for {source.symbol}"
                )
            self._compiler = self._backend.load(self._backend.compiler)(self._target)
            self._folder.mkdir(parents=True, exist_ok=True)
        assert self._compiler is not None
        return self._compiler

    def write_notes(self) -> None:
        """Beside each binary, what it is and what it was compiled from, as JSON."""
        by_binary: dict[str, list[str]] = {}
        for key, kernel in self._built.items():
            by_binary.setdefault(kernel.binary, []).append(key)
        for binary, keys in by_binary.items():
            note = self._note(binary, sorted(keys))
            (self._folder / f"{binary}.json").write_bytes(canonical(note))

    def _note(self, binary: str, keys: Iterable[str]) -> KernelNote:
        sources = tuple(self._sources[key] for key in keys)
        kernel = next(k for k in self._built.values() if k.binary == binary)
        files = {file for s in sources for file in kernel_files(s, self._target)}
        return KernelNote(
            binary=binary,
            symbol=kernel.symbol,
            arch=self._target.arch,
            registers=kernel.registers,
            shared_bytes=kernel.shared_bytes + kernel.static_shared_bytes,
            num_warps=kernel.num_warps,
            digest=kernel.digest,
            sources=sources,
            code_digest=_digest(files),
        )

    @property
    def kernels(self) -> tuple[CompiledKernel, ...]:
        """Everything built, by file name; two sources may have given one binary."""
        return tuple(sorted(self._built.values(), key=lambda k: (k.binary, k.source)))

    @property
    def toolchain(self) -> dict[str, str]:
        """The compilers that ran."""
        return self._compiler.toolchain() if self._compiler else {}


def _digest(files: Iterable[Path]) -> str:
    """sha256 over the files' own, in order of content: no path may get in."""
    each = sorted(hashlib.sha256(f.read_bytes()).hexdigest() for f in files)
    return hashlib.sha256("".join(each).encode()).hexdigest()
