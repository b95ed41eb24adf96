"""Notes the kernels that programs launch, so that they can be compiled together. Compiles none."""

from __future__ import annotations

from lostwax.backends.kernel_compiler import KernelCompileError
from lostwax.backends.registry import Backend
from lostwax.ir.contract.kernel import CompiledKernel, KernelSource
from lostwax.ir.contract.target import Target


def stand_in(source: KernelSource) -> CompiledKernel:
    """What launches name until the kernel is compiled: its source's digest stands for the binary.

    What only its compiler knows is 0; `link` puts it in.
    """
    return CompiledKernel(
        binary=source.digest(),
        symbol=source.symbol,
        digest="",
        num_warps=source.num_warps,
        shared_bytes=0,
        registers=0,
    )


class KernelRequests:
    """Distinct sources in the order in which they were first asked for."""

    def __init__(self, backend: Backend, target: Target) -> None:
        self._has_compiler = backend.compiler is not None
        self._target = target
        self._sources: dict[str, KernelSource] = {}

    def request(self, source: KernelSource) -> CompiledKernel:
        """A stand-in for the source; KernelCompileError where the target compiles none."""
        if not self._has_compiler:
            raise KernelCompileError(
                f"target {self._target.name} has no kernel compiler, but a lowering asks"
                f" for {source.symbol}"
            )
        kernel = stand_in(source)
        self._sources.setdefault(kernel.binary, source)
        return kernel

    @property
    def sources(self) -> tuple[KernelSource, ...]:
        """Each source once."""
        return tuple(self._sources.values())
