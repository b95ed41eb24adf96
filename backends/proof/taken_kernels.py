"""Finds an artifact's binaries by what this lostwax would compile them from. Compiles nothing."""

from __future__ import annotations

import hashlib

from lostwax.backends.records.source_digest import kernel_code
from lostwax.backends.runtime.artifact_reader import ArtifactError
from lostwax.ir.contract.kernel import CompiledKernel, KernelSource
from lostwax.ir.contract.target import Target


class TakenKernels:
    """The artifact's binaries by source, and which of them one lowering took.

    `sources` notes what each taken binary was compiled from, as this lostwax's lowering says it:
    what the artifact says of it is never run.
    """

    def __init__(
        self,
        compiled: tuple[CompiledKernel, ...],
        sources: dict[str, KernelSource],
        target: Target,
    ) -> None:
        self._target = target
        self._by_source = {k.source: k for k in compiled}
        self._sources = sources
        self.taken: list[CompiledKernel] = []

    def __call__(self, source: KernelSource) -> CompiledKernel:
        """The binary of a source; ArtifactError where the artifact has none."""
        found = self._by_source.get(source.digest())
        if found is None:
            raise ArtifactError(
                f"the artifact holds no binary of {source.symbol} as this lostwax builds it;"
                " recompile the artifact with this version"
            )
        if found.code != kernel_code(source, self._target):
            raise ArtifactError(
                f"the artifact's binary of {source.symbol} was compiled from other code than this"
                " lostwax holds; recompile the artifact with this version"
            )
        self._sources[found.binary] = source
        self.taken.append(found)
        return found

    def digest(self) -> str:
        """sha256 over the taken binaries' digests, empty for host calls alone."""
        names = sorted({k.digest for k in self.taken})
        return hashlib.sha256("".join(names).encode()).hexdigest() if names else ""
