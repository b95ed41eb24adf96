"""The fp8 products of many rows on Hopper: what is launched and compiled for which sizes. Runs no
kernel.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from many_rows_cases import cases, experts, gate_up, linear, queries
from nvcc_here import needs_nvcc
from plain_case import Case

from lostwax.backends.cuda.compiler import CudaCompiler
from lostwax.backends.cuda.lowerings.fp8_experts import MANY_ROWS_EXPERTS
from lostwax.backends.cuda.lowerings.fp8_linear import MANY_ROWS_LINEAR
from lostwax.backends.cuda.lowerings.fp8_products import COLUMNS, KNOBS, ROWS, choose_form
from lostwax.backends.cuda.lowerings.fp8_tiles import WIDTHS, Extent, product_us
from lostwax.backends.cuda.target import CUDA_SM90A, CUDA_SM100A
from lostwax.backends.gpu_kernels.lowerings.grouped_experts import FP8_EXPERTS
from lostwax.backends.kernel_compiler import KernelCompileError
from lostwax.backends.lowering import Lowering
from lostwax.backends.proof.plain_match import PlainMatch, Value
from lostwax.ir.contract.check_launch import check_form
from lostwax.ir.contract.kernel import SHARED_BYTES, CompiledKernel, KernelSource
from lostwax.ir.contract.parameter import TensorMap
from lostwax.ir.contract.program import Bucket, KernelLaunch, Launch
from lostwax.ir.contract.scale_layout import FP8_BLOCKS, FP8_ROW_BLOCKS
from lostwax.ir.contract.target import Target

RULE = {knob.name: 0 for knob in (ROWS, COLUMNS, *KNOBS)}
K = 7168
SYMBOLS = ("sm90_fp8_products", "sm90_fp8_queries")


COMPILED = (
    "linear of scaled rows", "linear of two terms, tiles of 256 rows", "linear into f32",
    "linear of tiles of 64 rows", "linear of tiles of 192 columns", "linear with tickets",
    "gate and up of narrow tiles", "gate and up of tiles of 80 columns",
    "gate and up of tiles of 112 columns",
    "gate and up of scaled rows", "queries of two terms", "queries of 256 rows, quantised by f32",
    "experts of two terms", "experts with scales of two's powers",
)  # fmt: skip
"""Forms of each kind, which compile for seconds each."""
ALWAYS = ("linear of scaled rows", "gate and up of narrow tiles", "queries of two terms")


def extent(rows: int = 4096, terms: int = 1, *, gated: bool = False) -> Extent:
    """Of 7,168 columns of each weight."""
    units, room = CUDA_SM90A.compute_units, CUDA_SM90A.shared_memory_bytes
    return Extent(rows, 7168, K, terms, gated, units, room)


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


def match_of(
    case: Case, folder: Path, target: Target = CUDA_SM90A, compiler: Sources | None = None
) -> PlainMatch:
    return PlainMatch(
        target, case.bucket, case.values, case.attributes, compiler or Sources(), folder,
        stored=case.stored,
    )  # fmt: skip


def products(launches: tuple[Launch, ...]) -> list[KernelLaunch]:
    """Those of the kernel."""
    return [x for x in launches if isinstance(x, KernelLaunch) and x.symbol in SYMBOLS]


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
        assert {m.box[1] for m in maps} == {128}
        assert maps[0].box[0] == 64
        assert {m.box[0] for m in maps[1:]} <= set(WIDTHS)


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
@pytest.mark.parametrize("rows", [64, 128, 4096])
def test_a_form_fits_the_device(terms: int, gated: bool, rows: int) -> None:
    form = choose_form(extent(rows, terms, gated=gated), RULE)
    assert form.shared_bytes <= CUDA_SM90A.shared_memory_bytes
    assert form.tile.stages >= 2
    assert form.tile.columns in WIDTHS


def test_a_knob_has_the_last_word() -> None:
    chosen = {"tile_rows": 128, "columns": 96, "cluster": 2, "stages": 3, "turns": 4, "dynamic": 1}
    form = choose_form(extent(), chosen)
    assert (form.tile.rows, form.tile.columns, form.tile.cluster) == (128, 96, 2)
    assert (form.tile.stages, form.turns, form.dynamic) == (3, 4, True)
    few = choose_form(extent(terms=2), RULE | {"tile_rows": 256, "columns": 128, "stages": 6})
    assert few.tile.stages == 2, "no more than fit"


def test_few_rows_have_narrow_tiles_of_one_part_and_many_rows_wide_ones() -> None:
    few, many = choose_form(extent(64), RULE).tile, choose_form(extent(4096), RULE).tile
    assert (few.rows, few.columns) == (64, 64), "so that each unit has one"
    assert (many.rows, many.columns) == (256, 128)


def test_the_time_of_a_product_grows_with_each_of_its_sizes() -> None:
    tile = choose_form(extent(), RULE).tile
    least = product_us(tile, extent())
    for more in (extent(8192), extent(terms=2), extent(gated=True)):
        assert product_us(tile, more) > 1.2 * least


def test_few_rows_and_other_targets_are_refused_with_a_sentence(tmp_path: Path) -> None:
    case = linear(scaled=True)
    with pytest.raises(ValueError, match="matrix_units"):
        match_of(case, tmp_path, CUDA_SM100A).emit(MANY_ROWS_LINEAR)
    case.values["x"] = Value((32, 304), "f8E4M3FN", scale=FP8_ROW_BLOCKS)
    with pytest.raises(ValueError, match="axis 0 of x is 32, wants >= 33"):
        match_of(case, tmp_path).emit(MANY_ROWS_LINEAR)
    few = experts(scaled=True)
    few.values["x"] = Value((255, 160), "f8E4M3FN", scale=FP8_ROW_BLOCKS)
    with pytest.raises(ValueError, match="axis 0 of x is 255, wants >= 256"):
        match_of(few, tmp_path).emit(MANY_ROWS_EXPERTS)
    narrow = linear(scaled=True)
    narrow.values["op.out"] = Value((256, 300), "f16")
    with pytest.raises(ValueError, match=r"dtype of op\.out is f16"):
        match_of(narrow, tmp_path).emit(MANY_ROWS_LINEAR)


def test_queries_whose_heads_turn_elsewhere_are_refused_with_a_sentence(tmp_path: Path) -> None:
    turned = queries(scaled=True, quantised=True)
    turned = replace(turned, attributes={**turned.attributes, ("q_turned", "offset"): 96})
    with pytest.raises(ValueError, match="heads of 192 turn 64 from 96 on"):
        match_of(turned, tmp_path).emit(turned.lowering)
    wide = queries(scaled=True, quantised=True)
    wide = replace(wide, attributes={**wide.attributes, ("index_turned", "offset"): 4})
    with pytest.raises(ValueError, match="index queries of 128 turn 64 from 4 on"):
        match_of(wide, tmp_path).emit(wide.lowering)


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
    "name",
    [n if n in ALWAYS else pytest.param(n, marks=pytest.mark.slow) for n in COMPILED],
)
def test_forms_compile_to_the_same_bytes_in_two_folders(name: str, tmp_path: Path) -> None:
    """Without spilled registers or serialised products: these are refused."""
    case, asked = cases()[name], Sources()
    match_of(case, tmp_path, compiler=asked).emit(case.lowering, case.knobs)
    sources = [s for s in asked.sources if s.symbol in SYMBOLS]
    assert sources
    for source in sources:
        made: list[bytes] = []
        for folder in (tmp_path / "a", tmp_path / "b"):
            folder.mkdir(exist_ok=True)
            kernel = CudaCompiler(CUDA_SM90A).compile(source, folder)
            assert kernel.shared_bytes == source.constants[SHARED_BYTES]
            assert kernel.registers == 168  # 384 threads of 65,536 registers; then setmaxnreg
            made.append((folder / kernel.binary).read_bytes())
        assert made[0] == made[1]


@needs_nvcc
def test_another_size_of_shared_memory_does_not_compile(tmp_path: Path) -> None:
    constants = choose_form(extent(), RULE).constants() | {"WIDE": 0}
    constants["SHARED_BYTES"] += 16
    source = KernelSource(
        language="cuda", path="fp8_products.cu", symbol=SYMBOLS[0], constants=constants
    )
    with pytest.raises(KernelCompileError, match="the launch gives another size"):
        CudaCompiler(CUDA_SM90A).compile(source, tmp_path)
