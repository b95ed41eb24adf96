"""The fp8 products of many rows on Hopper: what is launched and compiled for which sizes. Runs no
kernel.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from many_rows_cases import cases, experts, gate_up, linear
from nvcc_here import needs_nvcc
from plain_case import Case

from lostwax.backends.cuda.compiler import CudaCompiler
from lostwax.backends.cuda.lowerings.fp8_experts import MANY_ROWS_EXPERTS
from lostwax.backends.cuda.lowerings.fp8_linear import MANY_ROWS_LINEAR
from lostwax.backends.cuda.lowerings.fp8_products import Extent, ProductForm, choose_form
from lostwax.backends.cuda.target import CUDA_SM90A, CUDA_SM100A
from lostwax.backends.gpu_kernels.lowerings.grouped_experts import FP8_EXPERTS
from lostwax.backends.kernel_compiler import KernelCompileError
from lostwax.backends.lowering import Lowering
from lostwax.backends.proof.plain_match import PlainMatch, Value
from lostwax.ir.contract.check_launch import check_form
from lostwax.ir.contract.kernel import CompiledKernel, KernelSource
from lostwax.ir.contract.parameter import TensorMap
from lostwax.ir.contract.program import Bucket, KernelLaunch, Launch
from lostwax.ir.contract.scale_layout import FP8_BLOCKS, FP8_ROW_BLOCKS
from lostwax.ir.contract.target import Target

RULE = {"parts": 0, "cluster": 0, "stages": 0, "turns": 0, "dynamic": 0}
K = 7168
WIDE = Extent(4096, 7168, 132)
SYMBOL = "sm90_fp8_products"


class Sources:
    """A compiler that keeps what it is asked for."""

    def __init__(self) -> None:
        self.sources: list[KernelSource] = []

    def compile(self, source: KernelSource, folder: Path) -> CompiledKernel:
        self.sources.append(source)
        return CompiledKernel(
            binary="k.cubin", symbol=source.symbol, digest="", num_warps=source.num_warps,
            shared_bytes=0, registers=0, trailing_nulls=0 if source.language == "cuda" else 2,
        )  # fmt: skip

    def toolchain(self) -> dict[str, str]:
        return {}


def match_of(case: Case, folder: Path, target: Target = CUDA_SM90A) -> PlainMatch:
    return PlainMatch(
        target, case.bucket, case.values, case.attributes, Sources(), folder, stored=case.stored
    )


def products(launches: tuple[Launch, ...]) -> list[KernelLaunch]:
    """Those of the kernel."""
    return [x for x in launches if isinstance(x, KernelLaunch) and x.symbol == SYMBOL]


@pytest.mark.parametrize("name", cases())
def test_every_launch_is_one_that_the_device_takes(name: str, tmp_path: Path) -> None:
    case = cases()[name]
    launches = match_of(case, tmp_path).emit(case.lowering, case.knobs)
    found = products(launches)
    assert len(found) == (2 if case.lowering is MANY_ROWS_EXPERTS else 1)
    for launch in found:
        check_form(launch, CUDA_SM90A)
        assert launch.grid[0] % launch.cluster[0] == 0
        assert launch.grid[0] <= CUDA_SM90A.compute_units, "all run at once"
        maps = [p for p in launch.params if isinstance(p, TensorMap)]
        assert [m.box for m in maps] == [(64, 128), (128, 128), (128, 128)]


def test_gate_and_up_are_halves_of_one_weight(tmp_path: Path) -> None:
    launches = match_of(case := gate_up(scaled=True), tmp_path).emit(case.lowering)
    (launch,) = products(launches)
    gate, up = [p.view for p in launch.params if isinstance(p, TensorMap)][1:]
    assert gate.shape == up.shape == (384, 304)
    assert (gate.offset, up.offset) == (0, 384 * 304)


def test_what_pairs_give_lies_where_their_rows_lay(tmp_path: Path) -> None:
    """Not while they are read: the product before the last has read them all."""
    match = match_of(case := experts(scaled=False), tmp_path)
    gated, down = products(match.emit(case.lowering))
    of_rows = next(p.view for p in gated.params if isinstance(p, TensorMap))
    hidden = next(p.view for p in down.params if isinstance(p, TensorMap))
    assert hidden.offset >= of_rows.offset + of_rows.num_bytes
    assert match.workspace_bytes >= hidden.offset + hidden.num_bytes


@pytest.mark.parametrize("terms", [1, 2])
@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("parts", [1, 2])
def test_a_form_fits_the_device(terms: int, gated: bool, parts: int) -> None:
    form = choose_form(terms, K, RULE | {"parts": parts}, WIDE, gated=gated)
    assert form.shared_bytes <= CUDA_SM90A.shared_memory_bytes
    assert form.stages >= 2
    assert form.parts == (1 if gated else parts)


def test_a_knob_has_the_last_word() -> None:
    form = choose_form(1, K, RULE | {"stages": 3, "cluster": 1, "turns": 4}, WIDE)
    assert (form.stages, form.cluster, form.turns) == (3, 1, 4)
    assert choose_form(2, K, RULE | {"parts": 2, "stages": 6}, WIDE).stages == 2, "no more than fit"


def test_few_rows_and_other_targets_are_refused_with_a_sentence(tmp_path: Path) -> None:
    case = linear(scaled=True)
    with pytest.raises(ValueError, match="matrix_units"):
        match_of(case, tmp_path, CUDA_SM100A).emit(MANY_ROWS_LINEAR)
    case.values["x"] = Value((255, 304), "f8E4M3FN", scale=FP8_ROW_BLOCKS)
    with pytest.raises(ValueError, match="axis 0 of x is 255, wants >= 256"):
        match_of(case, tmp_path).emit(MANY_ROWS_LINEAR)
    wide = linear(scaled=True)
    wide.values["op.out"] = Value((256, 300), "f32")
    with pytest.raises(ValueError, match=r"dtype of op\.out is f32"):
        match_of(wide, tmp_path).emit(MANY_ROWS_LINEAR)


def full_width(rows: int, n: int, k: int, folder: Path) -> PlainMatch:
    """One product of V3.2, official formats."""
    values = {
        "x": Value((rows, k), "f8E4M3FN", scale=FP8_ROW_BLOCKS),
        "weight": Value((n, k), "f8E4M3FN", scale=FP8_BLOCKS),
        "op.out": Value((rows, n), "bf16"),
    }
    return PlainMatch(CUDA_SM90A, Bucket(rows, rows, 1, rows), values, {}, Sources(), folder)


def routed(rows: int, folder: Path) -> PlainMatch:
    """The experts of one of eight ranks."""
    inter, dim = 2048, 7168
    wide = Value((32, inter, dim), "f8E4M3FN", scale=FP8_BLOCKS)
    values = {
        "x": Value((rows, dim), "f8E4M3FN", scale=FP8_ROW_BLOCKS), "gate": wide, "up": wide,
        "down": Value((32, dim, inter), "f8E4M3FN", scale=FP8_BLOCKS),
        "ids": Value((rows, 8), "i32"), "weights": Value((rows, 8), "f32"),
        "op.out": Value((rows, dim), "f32"),
    }  # fmt: skip
    return PlainMatch(CUDA_SM90A, Bucket(rows, rows, 1, rows), values, {}, Sources(), folder)


def compute_us(lowering: Lowering, match: PlainMatch) -> float:
    work = lowering.work(match, lowering.default_knobs())
    return work.flops / (match.target.tflops[match.dtype("x")] * 1e6)


@pytest.mark.parametrize("rows", [1024, 2048, 4096])
def test_the_estimate_of_experts_prefers_it_to_triton(rows: int, tmp_path: Path) -> None:
    match = routed(rows, tmp_path)
    assert compute_us(MANY_ROWS_EXPERTS, match) < compute_us(FP8_EXPERTS, match)


def test_the_estimate_counts_the_units_that_wait_for_the_last_tiles(tmp_path: Path) -> None:
    """Two tiles of 9 pairs of columns leave most of 66 pairs of units idle."""
    few, many = (full_width(rows, 2240, 7168, tmp_path) for rows in (256, 4096))
    each = [compute_us(MANY_ROWS_LINEAR, m) / m.shape("x")[0] for m in (few, many)]
    assert each[0] >= each[1]
    assert MANY_ROWS_LINEAR.work(few, RULE).launches == 1


@needs_nvcc
@pytest.mark.parametrize(
    ("form", "power_of_two"),
    [
        (choose_form(1, K, RULE, WIDE), False),
        (choose_form(2, K, RULE, WIDE), False),
        (choose_form(1, K, RULE | {"parts": 2}, WIDE), False),
        (choose_form(2, K, RULE | {"parts": 2, "cluster": 1}, WIDE), False),
        (choose_form(1, K, RULE, WIDE, gated=True), False),
        (choose_form(2, K, RULE, WIDE, gated=True), False),
        (choose_form(1, K, RULE, WIDE, gated=True, grouped=True), True),
        (choose_form(2, K, RULE, WIDE, gated=True, grouped=True), False),
        (choose_form(1, K, RULE | {"cluster": 1}, WIDE, grouped=True), False),
        (choose_form(2, K, RULE | {"cluster": 1}, WIDE, gated=True, grouped=True), False),
        (choose_form(2, K, RULE, WIDE, grouped=True), False),
        (choose_form(1, K, RULE | {"dynamic": 1}, WIDE), False),
        (choose_form(1, K, RULE | {"dynamic": 1, "parts": 2}, WIDE), False),
        (choose_form(2, K, RULE | {"dynamic": 1}, WIDE, gated=True), False),
        (choose_form(2, K, RULE | {"dynamic": 1}, WIDE, gated=True, grouped=True), False),
    ],
)
def test_every_form_compiles_to_the_same_bytes_in_two_folders(
    form: ProductForm, power_of_two: bool, tmp_path: Path
) -> None:
    """Without spilled registers or serialised products: these are refused."""
    constants = form.constants(power_of_two=power_of_two)
    source = KernelSource(
        language="cuda", path="fp8_products.cu", symbol=SYMBOL, constants=constants, num_warps=12
    )
    made: list[bytes] = []
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        kernel = CudaCompiler(CUDA_SM90A).compile(source, folder)
        assert kernel.shared_bytes == form.shared_bytes
        assert kernel.registers == 168  # 384 threads of 65,536 registers; then setmaxnreg
        made.append((folder / kernel.binary).read_bytes())
    assert made[0] == made[1]


@needs_nvcc
def test_another_size_of_shared_memory_does_not_compile(tmp_path: Path) -> None:
    constants = choose_form(1, K, RULE, WIDE).constants()
    constants["SHARED_BYTES"] += 16
    source = KernelSource(
        language="cuda", path="fp8_products.cu", symbol=SYMBOL, constants=constants
    )
    with pytest.raises(KernelCompileError, match="the launch gives another size"):
        CudaCompiler(CUDA_SM90A).compile(source, tmp_path)
