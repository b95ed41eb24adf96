"""CUDA kernels compile to reproducible cubins on a machine without a GPU."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from nvcc_here import needs_nvcc

from lostwax.backends.cuda import compiler as cuda_compiler
from lostwax.backends.cuda import nvcc
from lostwax.backends.cuda.compiler import CudaCompiler
from lostwax.backends.cuda.lowerings.topk import TOPK, choose_form
from lostwax.backends.cuda.target import CUDA_SM90A
from lostwax.backends.gpu_kernels.elf import ELF_MAGIC
from lostwax.backends.gpu_kernels.lowerings.norms import ADD_RMS_NORM
from lostwax.backends.kernel_compiler import KernelCompileError
from lostwax.backends.proof.plain_match import PlainMatch, Value
from lostwax.ir.contract.parameter import Null, Pointer
from lostwax.ir.contract.program import Bucket, KernelLaunch


def norm_match(folder: Path) -> PlainMatch:
    rows = Value((4, 96), "bf16")
    values = {"residual": rows, "delta": rows, "residual_out": rows, "normed": rows}
    values |= {"sum": Value((4, 96), "f32"), "weight": Value((96,), "bf16")}
    compiler = CudaCompiler(CUDA_SM90A)
    attributes = {("normed", "eps"): 1e-6}
    return PlainMatch(CUDA_SM90A, Bucket(4, 4, 1, 4), values, attributes, compiler, folder)


def topk_match(folder: Path, length: int = 100, k: int = 32) -> PlainMatch:
    values = {"logits": Value((2, length), "f32"), "op.out": Value((2, k), "i32")}
    compiler = CudaCompiler(CUDA_SM90A)
    return PlainMatch(CUDA_SM90A, Bucket(2, 2, 1, 2), values, {("op", "k"): k}, compiler, folder)


def only_kernel(match: PlainMatch, launches: tuple[object, ...]) -> KernelLaunch:
    (launch,) = launches
    assert isinstance(launch, KernelLaunch)
    assert launch.binary in match.compiled
    return launch


def test_a_triton_kernel_gives_the_same_cubin_in_two_folders(tmp_path: Path) -> None:
    pytest.importorskip("triton")
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()

    first, second = norm_match(tmp_path / "a"), norm_match(tmp_path / "b")
    launch = only_kernel(first, first.emit(ADD_RMS_NORM))
    only_kernel(second, second.emit(ADD_RMS_NORM))

    cubin = (tmp_path / "a" / launch.binary).read_bytes()
    assert cubin.startswith(ELF_MAGIC)
    assert (tmp_path / "b" / launch.binary).read_bytes() == cubin
    assert str(Path.cwd()).encode() not in cubin
    assert [type(p) for p in launch.params[-2:]] == [Null, Null]
    assert first.compiled[launch.binary].registers > 0


@needs_nvcc
def test_a_cuda_kernel_gives_the_same_cubin_in_two_folders(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()

    first, second = topk_match(tmp_path / "a"), topk_match(tmp_path / "b")
    launch = only_kernel(first, first.emit(TOPK))
    only_kernel(second, second.emit(TOPK))

    cubin = (tmp_path / "a" / launch.binary).read_bytes()
    assert cubin.startswith(ELF_MAGIC)
    assert (tmp_path / "b" / launch.binary).read_bytes() == cubin
    assert isinstance(launch.params[0], Pointer)
    assert not any(isinstance(p, Null) for p in launch.params)


def test_a_missing_nvcc_is_an_error_that_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str = "") -> None:
        return None

    monkeypatch.setattr(nvcc, "_from_wheel", absent)
    monkeypatch.setattr(shutil, "which", absent)
    match = topk_match(tmp_path)
    with pytest.raises(KernelCompileError, match="aot-cuda"):
        match.emit(TOPK)


def test_a_source_that_names_other_parameters_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("triton")
    match = norm_match(tmp_path)
    launch = only_kernel(match, match.emit(ADD_RMS_NORM))
    assert launch.op == "smxx_add_rms_norm"
    source = cuda_compiler.KernelSource(
        language="triton",
        path="lostwax.backends.gpu_kernels.norms",
        symbol="rms_norm",
        signature={"x": "*fp32"},
    )
    with pytest.raises(KernelCompileError, match="takes"):
        match.build(source)


@pytest.mark.parametrize("rows", [1, 3, 16, 128, 500])
@pytest.mark.parametrize("length", [1, 64, 2048, 2049, 4096, 32768, 163840])
def test_a_form_holds_its_row_and_uses_no_more_units_than_help(rows: int, length: int) -> None:
    form = choose_form(rows, length, compute_units=132)
    chunk = (-(-length // form.cluster) + 3) // 4 * 4
    assert chunk <= form.capacity // form.cluster
    assert form.cluster == 1 or rows * form.cluster <= 132 or length > 16384


def test_a_row_longer_than_the_kernel_holds_is_refused_with_the_bound(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="axis 1 of logits"):
        topk_match(tmp_path, length=300_000).emit(TOPK)
