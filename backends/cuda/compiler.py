"""Compiles Triton and CUDA C++ kernels to cubins without a GPU. Knows no driver and no lowering."""

from __future__ import annotations

import subprocess
import tempfile
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

from lostwax.backends.cuda.cubin import kernel_usage
from lostwax.backends.cuda.nvcc import Nvcc, find_nvcc
from lostwax.backends.cuda.ptxas_report import require_fast_code
from lostwax.backends.gpu_kernels.binary import store_binary
from lostwax.backends.gpu_kernels.cuda_files import cuda_files
from lostwax.backends.gpu_kernels.fixed_addresses import fixed_addresses
from lostwax.backends.gpu_kernels.triton_compiler import TRITON_SCRATCH_POINTERS, TritonCompiler
from lostwax.backends.kernel_compiler import KernelCompileError
from lostwax.ir.contract.kernel import SHARED_BYTES, SPILL_BYTES, CompiledKernel, KernelSource
from lostwax.ir.contract.target import Target

_KERNELS = "lostwax.backends.cuda.kernels"
_NVCC_FLAGS = ("-std=c++17", "-O3", "--fmad=true", "-cubin", "-Xptxas", "-v")
_NAMED_AFTER_FOLDER = b"_INTERNAL_"
"""What nvcc calls device variables of one file: a hash of the folder follows."""


def _own_kernels() -> Path:
    spec = find_spec(_KERNELS)
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


class CudaCompiler:
    """A KernelCompiler for one CUDA target. The same source gives the same bytes in any folder.

    `kernels` is the folder of the .cu files, the target's own where it is not given.
    """

    def __init__(self, target: Target, kernels: Path | None = None) -> None:
        self._target = target
        self._kernels = kernels or _own_kernels()
        self._generation = target.arch.removeprefix("sm_")  # such as 90a
        number = int(self._generation.rstrip("af"))
        self._triton = TritonCompiler("cuda", number, target.wave_size)

    @cached_property
    def _nvcc(self) -> Nvcc:
        return find_nvcc()

    def compile(self, source: KernelSource, folder: Path) -> CompiledKernel:
        """Write the cubin into `folder` under its content's name and describe it."""
        if source.language == "cuda":
            cubin = self._compile_cuda(source)
            trailing, dynamic_shared = 0, source.constants.get(SHARED_BYTES, 0)
        else:
            cubin, dynamic_shared = self._triton.compile(source)
            trailing = TRITON_SCRATCH_POINTERS
        usage = kernel_usage(cubin, source.symbol)
        return store_binary(
            cubin, "cubin", source, self._target, usage, dynamic_shared, trailing, folder
        )

    def toolchain(self) -> dict[str, str]:
        """Compiler names and versions, for the manifest."""
        return {"triton": self._triton.version, "nvcc": self._nvcc.version}

    def _compile_cuda(self, source: KernelSource) -> bytes:
        """nvcc over a copy in a folder of its own, so that no path of this machine gets in."""
        kernels = self._kernels
        with tempfile.TemporaryDirectory() as work:
            for name in cuda_files(kernels, source.path):
                copy = Path(work, name)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes((kernels / name).read_bytes())
            command = [
                str(self._nvcc.program),
                *_NVCC_FLAGS,
                f"-gencode=arch=compute_{self._generation},code=sm_{self._generation}",
                *(f"-D{name}={value}" for name, value in sorted(source.constants.items())),
                *("-I.", "-o", "kernel.cubin", source.path),
            ]
            with fixed_addresses():
                done = subprocess.run(command, cwd=work, capture_output=True, text=True)
            if done.returncode:
                raise KernelCompileError(
                    f"nvcc {self._nvcc.version} refused {source.path} with {source.constants}:\n"
                    + done.stderr
                )
            named = f"{source.path} with {source.constants}"
            may_spill = source.constants.get(SPILL_BYTES, 0)
            require_fast_code(named, done.stderr + done.stdout, may_spill)
            cubin = Path(work, "kernel.cubin").read_bytes()
        if _NAMED_AFTER_FOLDER in cubin:
            raise KernelCompileError(
                f"the cubin of {source.path} holds a name that nvcc makes from the folder it runs"
                f" in ({_NAMED_AFTER_FOLDER.decode()}…), so that its bytes differ each time: make"
                " device variables extern or constexpr, and include no header that leaves one in"
            )
        return cubin
