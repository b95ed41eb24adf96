"""Compiles Triton and CUDA C++ kernels to cubins without a GPU. Knows no driver and no lowering."""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lostwax.backends.cuda.elf import kernel_usage
from lostwax.backends.cuda.nvcc import Nvcc, find_nvcc
from lostwax.backends.kernel_compiler import KernelCompileError
from lostwax.ir.contract.kernel import CompiledKernel, KernelSource
from lostwax.ir.contract.target import Target

TRITON_SCRATCH_POINTERS = 2
"""Triton's kernels take two pointers after their own parameters: global and profile scratch."""

_KERNELS = "lostwax.backends.cuda.kernels"
_NVCC_FLAGS = ("-std=c++17", "-O3", "--fmad=true", "-cubin")


class CudaCompiler:
    """A KernelCompiler for one CUDA target. The same source gives the same bytes in any folder."""

    def __init__(self, target: Target) -> None:
        self._target = target

    @cached_property
    def _nvcc(self) -> Nvcc:
        return find_nvcc()

    def compile(self, source: KernelSource, folder: Path) -> CompiledKernel:
        """Write the cubin into `folder` under its content's name and describe it."""
        if source.language == "cuda":
            cubin = self._compile_cuda(source)
            trailing, dynamic_shared = 0, 0
        else:
            cubin, dynamic_shared = self._compile_triton(source)
            trailing = TRITON_SCRATCH_POINTERS
        digest = hashlib.sha256(cubin).hexdigest()
        usage = kernel_usage(cubin, source.symbol)
        limit = self._target.shared_memory_bytes
        if usage.static_shared_bytes + dynamic_shared > limit:
            raise KernelCompileError(
                f"{source.symbol} with {source.constants} takes"
                f" {usage.static_shared_bytes + dynamic_shared} bytes of shared memory, the target"
                f" {self._target.name} has {limit}: choose smaller blocks or fewer stages"
            )
        binary = f"{source.symbol}-{digest[:16]}.cubin"
        (folder / binary).write_bytes(cubin)
        return CompiledKernel(
            binary=binary,
            symbol=source.symbol,
            digest=digest,
            num_warps=source.num_warps,
            shared_bytes=dynamic_shared,
            registers=usage.registers,
            trailing_nulls=trailing,
        )

    def toolchain(self) -> dict[str, str]:
        """Compiler names and versions, for the manifest."""
        return {"triton": _import_triton().__version__, "nvcc": self._nvcc.version}

    def _compile_cuda(self, source: KernelSource) -> bytes:
        """nvcc over a copy in a folder of its own, so that no path of this machine gets in."""
        spec = find_spec(_KERNELS)
        assert spec is not None
        assert spec.submodule_search_locations
        text = Path(spec.submodule_search_locations[0], source.path).read_bytes()
        generation = self._target.arch.removeprefix("sm_")
        with tempfile.TemporaryDirectory() as work:
            Path(work, "kernel.cu").write_bytes(text)
            command = [
                str(self._nvcc.program),
                *_NVCC_FLAGS,
                f"-gencode=arch=compute_{generation},code=sm_{generation}",
                *(f"-D{name}={value}" for name, value in sorted(source.constants.items())),
                *("-o", "kernel.cubin", "kernel.cu"),
            ]
            done = subprocess.run(command, cwd=work, capture_output=True, text=True)
            if done.returncode:
                raise KernelCompileError(
                    f"nvcc {self._nvcc.version} refused {source.path} with {source.constants}:\n"
                    + done.stderr
                )
            return Path(work, "kernel.cubin").read_bytes()

    def _compile_triton(self, source: KernelSource) -> tuple[bytes, int]:
        """The cubin and its dynamic shared memory."""
        triton = _import_triton()
        from triton.backends.compiler import GPUTarget
        from triton.compiler import ASTSource

        function = getattr(import_module(source.path), source.symbol)
        if not isinstance(function, triton.runtime.JITFunction):
            raise KernelCompileError(
                f"{source.path}:{source.symbol} is no compilable Triton kernel in this process"
                " (TRITON_INTERPRET must not be set while compiling)"
            )
        signature, aligned = _split_signature(source, list(function.arg_names))
        constants = {(i,): source.constants[n] for i, n in enumerate(function.arg_names)
                     if signature[n] == "constexpr"}  # fmt: skip
        generation = int(self._target.arch.removeprefix("sm_").rstrip("af"))
        with _reproducible(triton):
            compiled = triton.compile(
                ASTSource(
                    fn=function,
                    signature=signature,
                    constexprs=constants,
                    attrs={(i,): [["tt.divisibility", 16]] for i in aligned},
                ),
                target=GPUTarget("cuda", generation, self._target.wave_size),
                options={
                    "num_warps": source.num_warps,
                    "num_stages": source.num_stages,
                    "enable_fp_fusion": True,
                },
            )
        metadata = compiled.metadata
        if metadata.global_scratch_size or metadata.profile_scratch_size:
            raise KernelCompileError(
                f"{source.symbol} wants scratch memory of Triton's, which launches do not provide:"
                " write the kernel without tensor descriptors made on the device"
            )
        return compiled.asm["cubin"], metadata.shared


def _split_signature(
    source: KernelSource, names: list[str]
) -> tuple[dict[str, str], tuple[int, ...]]:
    """Types by parameter, and which parameters are multiples of 16 (written `*bf16:16`)."""
    if list(source.signature) != names:
        raise KernelCompileError(
            f"{source.symbol} takes {names}, its KernelSource names {list(source.signature)}"
        )
    types = {n: t.removesuffix(":16") for n, t in source.signature.items()}
    aligned = tuple(i for i, t in enumerate(source.signature.values()) if t.endswith(":16"))
    return types, aligned


def _import_triton() -> Any:  # Triton's modules are untyped
    try:
        return import_module("triton")
    except ImportError as error:
        raise KernelCompileError(
            "Triton kernels need the package triton, and it is not installed:"
            " pip install -c constraints.txt -e '.[aot]'"
        ) from error


@contextmanager
def _reproducible(triton: Any) -> Generator[None]:  # Triton's knobs are untyped
    """No source paths in the cubin, and no cache of earlier builds outside a throw-away folder."""
    knobs = triton.knobs
    with (
        tempfile.TemporaryDirectory() as work,
        knobs.compilation.scope(),
        knobs.cache.scope(),
    ):
        knobs.compilation.disable_line_info = True
        knobs.compilation.always_compile = True
        knobs.cache.dir = work
        yield
