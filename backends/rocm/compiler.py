"""Compiles Triton kernels to code objects (hsaco) without a GPU. Knows no driver, no lowering."""

from __future__ import annotations

from pathlib import Path

from lostwax.backends.gpu_kernels.binary import store_binary
from lostwax.backends.gpu_kernels.triton_compiler import (
    TRITON_SCRATCH_POINTERS,
    TritonCompiler,
    num_parameters,
)
from lostwax.backends.kernel_compiler import KernelCompileError
from lostwax.backends.rocm.hsaco import kernel_usage, parameters_of
from lostwax.backends.rocm.next_legal import next_legal
from lostwax.ir.contract.kernel import CompiledKernel, KernelSource
from lostwax.ir.contract.target import Target


class RocmCompiler:
    """A KernelCompiler for one ROCm target. The same source gives the same bytes in any folder."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._triton = TritonCompiler("hip", target.arch, target.wave_size)

    def compile(self, source: KernelSource, folder: Path) -> CompiledKernel:
        """Write the code object into `folder` under its content's name and describe it."""
        if source.language != "triton":
            raise KernelCompileError(
                f"{source.symbol} is written in {source.language}, and the target"
                f" {self._target.name} compiles Triton only: its lowering needs a predicate"
            )
        hsaco, dynamic_lds = self._triton.compile(source)
        limit = self._target.shared_memory_bytes
        if dynamic_lds > limit:
            legal = next_legal(source, lambda smaller: self._triton.compile(smaller)[1], limit)
            raise KernelCompileError(
                f"{source.symbol} with {source.constants} in {source.num_stages} stages takes"
                f" {dynamic_lds} bytes of LDS, the target {self._target.name} has {limit}: the next"
                f" legal setting is {legal or 'a smaller one of several constants'}"
            )
        own = num_parameters(source)
        taken = parameters_of(hsaco, source.symbol)
        if taken != own + TRITON_SCRATCH_POINTERS:
            raise KernelCompileError(
                f"{source.symbol} takes {taken} parameters as compiled, its launch would pass"
                f" {own + TRITON_SCRATCH_POINTERS}: this version of Triton passes others;"
                " use the version in constraints.txt"
            )
        return store_binary(
            hsaco,
            "hsaco",
            source,
            self._target,
            kernel_usage(hsaco, source.symbol),
            dynamic_lds,
            TRITON_SCRATCH_POINTERS,
            folder,
        )

    def toolchain(self) -> dict[str, str]:
        """Compiler names and versions, for the manifest."""
        return {"triton": self._triton.version}
