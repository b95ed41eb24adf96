"""Compiles an artifact's kernels into its folder, with a note beside each. Knows no program."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from msgspec import structs

from lostwax.backends.kernel_compiler import KernelCompileError
from lostwax.backends.kernel_pool import KernelPool, compiling
from lostwax.backends.kernel_worker import Job
from lostwax.backends.records.source_digest import kernel_code, kernel_files
from lostwax.backends.registry import Backend
from lostwax.ir.contract.canonical import canonical
from lostwax.ir.contract.kernel import CompiledKernel, KernelNote, KernelSource
from lostwax.ir.contract.target import Target


@dataclass(frozen=True)
class BuiltKernels:
    """Kernels by their sources' digests, and the compilers that ran."""

    by_source: dict[str, CompiledKernel]
    toolchain: dict[str, str]

    @property
    def kernels(self) -> tuple[CompiledKernel, ...]:
        """All of them by file name; two sources may have given one binary."""
        return tuple(sorted(self.by_source.values(), key=lambda k: (k.binary, k.source)))


class KernelBuilder:
    """Kernels that are being compiled into a folder."""

    def __init__(
        self, pool: KernelPool, sources: Sequence[KernelSource], target: Target, folder: Path
    ) -> None:
        self._pool = pool
        self._sources = {source.digest(): source for source in sources}
        self._target = target
        self._folder = folder

    def finish(self) -> BuiltKernels:
        """Wait for the kernels and write their notes; raises the error of the first that failed.

        First in the order of the sources, whatever ended first. A KernelCompileError, also for what
        the target could not launch, or an OSError where the system refused its compiler something,
        such as space on the disk.
        """
        built = {
            key: structs.replace(kernel, source=key, code=kernel_code(source, self._target))
            for (key, source), kernel in zip(
                self._sources.items(), self._pool.kernels(), strict=True
            )
        }
        for kernel in built.values():
            self._require_room(kernel)
        by_binary: dict[str, list[str]] = {}
        for key, kernel in built.items():
            by_binary.setdefault(kernel.binary, []).append(key)
        for binary, keys in by_binary.items():
            note = self._note(built[keys[0]], sorted(keys))
            (self._folder / f"{binary}.json").write_bytes(canonical(note))
        return BuiltKernels(built, self._pool.toolchain())

    def _require_room(self, kernel: CompiledKernel) -> None:
        taken, there = _shared_bytes(kernel), self._target.shared_memory_bytes
        if taken > there:
            raise KernelCompileError(
                f"kernel {kernel.symbol} takes {taken} bytes of shared memory a block, target"
                f" {self._target.name} has {there} (its fact shared_memory_bytes); refuse such"
                " sizes in its lowering"
            )

    def _note(self, kernel: CompiledKernel, keys: Iterable[str]) -> KernelNote:
        """What the binary is and what it was compiled from."""
        sources = tuple(self._sources[key] for key in keys)
        files = {file for s in sources for file in kernel_files(s, self._target)}
        return KernelNote(
            binary=kernel.binary,
            symbol=kernel.symbol,
            arch=self._target.arch,
            registers=kernel.registers,
            shared_bytes=_shared_bytes(kernel),
            num_warps=kernel.num_warps,
            digest=kernel.digest,
            sources=sources,
            code_digest=_digest(files),
        )


@contextmanager
def building(
    backend: Backend, target: Target, folder: Path, sources: Sequence[KernelSource], jobs: int
) -> Generator[KernelBuilder]:
    """Begin to compile distinct sources on up to `jobs` processes, which the block outlives.

    The folder is made where there is something to compile.
    """
    if sources:
        folder.mkdir(parents=True, exist_ok=True)
    job = Job(
        compiler=backend.compiler or "",
        target=target,
        folder=os.fsencode(folder.absolute()),
    )
    with compiling(job, sources, jobs) as pool:
        yield KernelBuilder(pool, sources, target, folder)


def _shared_bytes(kernel: CompiledKernel) -> int:
    """Of a block, whoever asks for them: the launch or the binary."""
    return kernel.shared_bytes + kernel.static_shared_bytes


def _digest(files: Iterable[Path]) -> str:
    """sha256 over the files' own, in order of content: no path may get in."""
    each = sorted(hashlib.sha256(f.read_bytes()).hexdigest() for f in files)
    return hashlib.sha256("".join(each).encode()).hexdigest()
