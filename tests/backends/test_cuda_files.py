"""A CUDA C++ kernel is its file and what that includes, and what would be slow is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from nvcc_here import needs_nvcc

from lostwax.backends.cuda.compiler import CudaCompiler
from lostwax.backends.cuda.ptxas_report import require_fast_code
from lostwax.backends.cuda.target import CUDA_SM90A
from lostwax.backends.gpu_kernels.cuda_files import cuda_files
from lostwax.backends.kernel_compiler import KernelCompileError
from lostwax.backends.records.source_digest import kernel_files
from lostwax.ir.contract.kernel import CompiledKernel, KernelSource

EMPTY = 'extern "C" __global__ void k(int* p) {}\n'
CLEAN = "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads"


def compiled(folder: Path, text: str, **constants: int) -> CompiledKernel:
    (folder / "kernels").mkdir(exist_ok=True)
    (folder / "kernels" / "k.cu").write_text(text)
    source = KernelSource(language="cuda", path="k.cu", symbol="k", constants=constants)
    return CudaCompiler(CUDA_SM90A, folder / "kernels").compile(source, folder)


def test_what_a_file_includes_by_quotes_belongs_to_it(tmp_path: Path) -> None:
    (tmp_path / "part").mkdir()
    (tmp_path / "a.cu").write_text('#include <stdint.h>\n  # include "part/b.h"\n')
    (tmp_path / "part" / "b.h").write_text('#include "c.h"\n#include "part/d.h"\n')
    (tmp_path / "part" / "c.h").write_text('#include "b.h"\n')
    (tmp_path / "part" / "d.h").write_text("")
    (tmp_path / "other.h").write_text("")
    assert cuda_files(tmp_path, "a.cu") == ("a.cu", "part/b.h", "part/c.h", "part/d.h")


@pytest.mark.parametrize("name", ["absent.h", "../outside.h"])
def test_an_include_from_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    kernels = tmp_path / "kernels"
    kernels.mkdir()
    (tmp_path / "outside.h").write_text("")
    (kernels / "a.cu").write_text(f'#include "{name}"\n')
    with pytest.raises(ValueError, match="lies neither beside it nor in kernels/"):
        cuda_files(kernels, "a.cu")


def test_headers_count_among_the_code_behind_a_kernel() -> None:
    source = KernelSource(language="cuda", path="sparse_mla.cu", symbol="sm90_sparse_mla")
    names = {file.name for file in kernel_files(source, CUDA_SM90A)}
    assert {"sparse_mla.cu", "score.h", "wgmma.h", "ring.h"} <= names


@pytest.mark.parametrize(
    ("report", "message"),
    [
        ("", "says nothing"),
        ("0 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads", "20 bytes of stores"),
        (
            f"{CLEAN}\nptxas info    : (C7512) Potential Performance Loss: wgmma.mma_async"
            " instructions are serialized due to insufficient register resources",
            "one behind the other",
        ),
        (f"{CLEAN}\nptxas info    : (C7514) Potential Performance Loss", "one behind the other"),
    ],
)
def test_what_ptxas_only_mentions_is_refused(report: str, message: str) -> None:
    require_fast_code("k.cu", CLEAN, 0)
    with pytest.raises(KernelCompileError, match=message):
        require_fast_code("k.cu", report, 19)


def test_a_lowering_may_allow_spilled_bytes() -> None:
    require_fast_code("k.cu", "8 bytes spill stores, 12 bytes spill loads", 20)


@needs_nvcc
def test_a_spilling_kernel_does_not_compile(tmp_path: Path) -> None:
    text = """
    extern "C" __global__ void __launch_bounds__(1024, 2) k(float* p) {
      float x[64];
      #pragma unroll
      for (int i = 0; i < 64; i++) x[i] = p[i * 1024 + threadIdx.x];
      __syncthreads();
      #pragma unroll
      for (int i = 0; i < 64; i++) p[i * 1024 + threadIdx.x] = x[(i * 7) % 64] * x[63 - i];
    }
    """
    with pytest.raises(KernelCompileError, match="spills registers"):
        compiled(tmp_path, text)


@needs_nvcc
def test_a_cubin_that_depends_on_its_folder_is_refused(tmp_path: Path) -> None:
    seen = "namespace { __device__ int seen; }\n"
    text = seen + EMPTY.replace("{}", "{ *p = atomicAdd(&seen, 1); }")
    with pytest.raises(KernelCompileError, match="from the folder it runs in"):
        compiled(tmp_path, text)


@needs_nvcc
@pytest.mark.parametrize(
    ("body", "own"),
    [
        ("", 0),
        ("extern __shared__ int s[]; s[threadIdx.x] = *p; __syncthreads(); *p = s[1];", 0),
        ("__shared__ int s[100]; s[threadIdx.x] = *p; __syncthreads(); *p = s[1];", 400),
    ],
    ids=["none", "dynamic", "static"],
)
def test_the_systems_shared_memory_is_not_counted(tmp_path: Path, body: str, own: int) -> None:
    kernel = compiled(tmp_path, EMPTY.replace("{}", "{" + body + "}"))
    assert kernel.static_shared_bytes == own


@needs_nvcc
def test_all_that_a_block_may_take_is_allowed_and_no_more(tmp_path: Path) -> None:
    most = CUDA_SM90A.shared_memory_bytes
    text = EMPTY.replace("{}", "{ extern __shared__ int s[]; *p = s[*p]; }")
    assert compiled(tmp_path, text, SHARED_BYTES=most).shared_bytes == most
    with pytest.raises(KernelCompileError, match=f"takes {most + 16} bytes of shared memory"):
        compiled(tmp_path, text, SHARED_BYTES=most + 16)
