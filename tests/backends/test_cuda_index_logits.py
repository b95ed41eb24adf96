"""The indexer's logits for Hopper: what is launched and compiled for which sizes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import msgspec
import pytest
from nvcc_here import needs_nvcc

from lostwax.backends.cuda.compiler import CudaCompiler
from lostwax.backends.cuda.lowerings.index_logits import (
    BF16_INDEX_LOGITS,
    FORMS,
    FP8_INDEX_LOGITS,
    IndexForm,
    choose_form,
)
from lostwax.backends.cuda.lowerings.index_topk import (
    BF16_INDEX_TOPK_TILES,
    FP8_INDEX_TOPK_TILES,
)
from lostwax.backends.cuda.target import CUDA_SM90A, CUDA_SM100A
from lostwax.backends.kernel_compiler import KernelCompileError
from lostwax.backends.lowering import Lowering
from lostwax.backends.plan.step_launch import step_launch
from lostwax.backends.proof.plain_match import PlainMatch, Value
from lostwax.ir.contract.check_launch import check_form
from lostwax.ir.contract.kernel import CompiledKernel, KernelSource
from lostwax.ir.contract.parameter import Null, Scalar, TensorMap
from lostwax.ir.contract.program import Bucket, KernelLaunch
from lostwax.ir.contract.scale_layout import FP8_ROW_BLOCKS
from lostwax.ir.contract.target import Target

RULE = FP8_INDEX_LOGITS.default_knobs()
RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
TIMED = [RESULTS / f"2026-11-29-h200-{name}.json" for name in ("index", "index-bf16")]
ROOM = CUDA_SM90A.shared_memory_bytes
BOTH = [
    dataclasses.replace(form, element_bytes=each, room_bytes=ROOM)
    for each in (1, 2)
    for form in FORMS
]


class Sources:
    """A compiler that keeps what it is asked for."""

    def __init__(self) -> None:
        self.sources: list[KernelSource] = []

    def compile(self, source: KernelSource, folder: Path) -> CompiledKernel:
        self.sources.append(source)
        return CompiledKernel(
            binary=f"{source.symbol}.cubin",
            symbol=source.symbol,
            digest="",
            num_warps=source.num_warps,
            shared_bytes=0,
            registers=0,
        )

    def toolchain(self) -> dict[str, str]:
        return {}


def match_of(
    folder: Path,
    rows: int = 128,
    reqs: int = 128,
    layout: str = "index_paged",
    target: Target = CUDA_SM90A,
    heads: int = 64,
    strides: tuple[int, ...] = (),
    compiler: CudaCompiler | Sources | None = None,
) -> PlainMatch:
    """A step of requests of at most 512 pages, or the same with its selection."""
    cache = Value((4000, 64 * 132), "u8", parts=(128,), layout="index_paged")
    if layout != "index_paged":
        cache = Value((4000, 64, 132), "u8", parts=(128,), layout=layout)
    queries = {
        "q": Value((rows, heads, 128), "f8E4M3FN", strides, scale=FP8_ROW_BLOCKS),
        "q:scale": Value((rows, heads, 1), "f32"),
    }
    if layout == "bf16":
        cache = Value((4000, 64, 128), "bf16", parts=(128,))
        queries = {"q": Value((rows, heads, 128), "bf16", strides)}
    values = queries | {
        "weights": Value((rows, heads), "f32"),
        "cache_in": cache,
        "positions": Value((rows,), "i32"),
        "q_starts": Value((reqs + 1,), "i32"),
        "page_table": Value((reqs, 512), "i32"),
        "op.out": Value((rows, 512 * 64), "f32"),
        "topk": Value((rows, 2048), "i32"),
    }
    attributes = {("op", "scale"): 0.1, ("logits", "scale"): 0.1}
    bucket = Bucket(rows, reqs, 512)
    return PlainMatch(target, bucket, values, attributes, compiler or Sources(), folder)


def launches_of(
    match: PlainMatch, lowering: Lowering = FP8_INDEX_LOGITS, **knobs: int
) -> list[KernelLaunch]:
    """What runs once a step, then once a layer; each such as the target takes."""
    chosen = lowering.default_knobs() | knobs
    first: list[KernelLaunch] = []
    for kernel in lowering.prepare(match, chosen):
        values = {name: Value(shape, kind) for name, kind, shape in kernel.outputs}
        match.values = dict(match.values) | values
        outputs = {name: match.view(name) for name in values}
        made = step_launch(kernel, match.step_input, outputs, match.build, match.target)
        assert isinstance(made, KernelLaunch)
        first.append(made)
    listed = [*first, *(x for x in match.emit(lowering, chosen) if isinstance(x, KernelLaunch))]
    for launch in listed:
        check_form(launch, match.target)
    return listed


def test_tiles_are_listed_once_a_step_and_scored_in_each_layer(tmp_path: Path) -> None:
    tiles, score = launches_of(match_of(tmp_path))
    assert (tiles.grid, tiles.block) == ((1, 1, 1), (1024, 1, 1))
    assert (score.grid, score.block) == ((132, 1, 1), (640, 1, 1))
    keys, queries = (p for p in score.params if isinstance(p, TensorMap))
    assert (keys.view.shape, keys.box) == ((4000, 66, 128), (1, 66, 128)), "a page is one box"
    assert (queries.view.shape, queries.box) == ((128 * 64, 128), (64, 128))


def test_bf16_keys_are_two_boxes_a_page_and_have_no_scales(tmp_path: Path) -> None:
    _, score = launches_of(match_of(tmp_path, 2048, 4, "bf16"), BF16_INDEX_LOGITS)
    keys, queries = (p for p in score.params if isinstance(p, TensorMap))
    assert (keys.view.shape, keys.box) == ((4000, 64, 128), (1, 64, 64))
    assert (queries.view.shape, queries.box) == ((2048 * 64, 128), (128, 64))
    assert [type(p) for p in score.params].count(Null) == 1


def test_a_list_costs_what_was_timed(tmp_path: Path) -> None:
    (kernel,) = FP8_INDEX_LOGITS.prepare(match_of(tmp_path), RULE)
    whole = [row for file in TIMED for row in json.loads(file.read_text())["rows"]]
    timed = [
        row["ours whole"]["us"] - row["ours"]["us"]
        for row in whole
        if "ours whole" in row and any(f" b={reqs} " in row["case"] for reqs in (16, 64, 128))
    ]
    assert kernel.us == pytest.approx(sum(timed) / len(timed), rel=0.02)


@pytest.mark.parametrize(
    ("rows", "reqs", "tile"), [(128, 128, 1), (256, 128, 2), (384, 128, 4), (2048, 4, 8)]
)
def test_a_tile_has_the_rows_of_a_request(rows: int, reqs: int, tile: int) -> None:
    assert choose_form(rows, reqs, RULE, ROOM).rows == tile


def test_the_knobs_have_the_last_word() -> None:
    form = choose_form(128, 128, {"form": 8, "stages": 4}, ROOM)
    assert (form.rows, form.warpgroups, form.stages) == (8, 2, 4)


@pytest.mark.parametrize(
    ("layout", "lowering"),
    [("index_paged", FP8_INDEX_TOPK_TILES), ("bf16", BF16_INDEX_TOPK_TILES)],
)
def test_the_selection_lists_and_scores_a_tile_of_rows_at_a_time(
    tmp_path: Path, layout: str, lowering: Lowering
) -> None:
    """Each of the step's parts has lists of its own; workspaces hold one part's logits."""
    match = match_of(tmp_path, 2048, 4, layout)
    launches = launches_of(match, lowering)
    names = ["index_tiles"] * 2 + ["sm90_index_logits", "sm90_f32_topk"] * 2
    assert [each.symbol for each in launches] == names
    firsts = [
        [p.value for p in each.params if isinstance(p, Scalar) and p.kind == "i32"][:2]
        for each in (launches[2], launches[4])
    ]
    assert firsts == [[0, 1024], [1024, 1024]]
    assert match.workspace_bytes == 1024 * 512 * 64 * 4


def test_what_it_is_not_made_for_is_refused_with_a_sentence(tmp_path: Path) -> None:
    def refusal(match: PlainMatch) -> str | None:
        return FP8_INDEX_LOGITS.when.refusal(match)

    assert refusal(match_of(tmp_path)) is None
    assert "matrix_units" in (refusal(match_of(tmp_path, target=CUDA_SM100A)) or "")
    assert "index_row" in (refusal(match_of(tmp_path, layout="index_row")) or "")
    assert "32 heads of 128" in (refusal(match_of(tmp_path, heads=32)) or "")
    assert "axis 0 of page_table" in (refusal(match_of(tmp_path, 2000, 2000)) or "")
    assert "bf16" in (refusal(match_of(tmp_path, layout="bf16")) or "")
    assert BF16_INDEX_LOGITS.when.refusal(match_of(tmp_path, layout="bf16")) is None
    assert "f8E4M3FN" in (BF16_INDEX_LOGITS.when.refusal(match_of(tmp_path)) or "")
    mixed = match_of(tmp_path)
    mixed.values = dict(mixed.values) | {"q": match_of(tmp_path, layout="bf16").values["q"]}
    for lowering in (FP8_INDEX_LOGITS, BF16_INDEX_LOGITS):
        assert lowering.when.refusal(mixed) is not None


def test_queries_with_gaps_are_refused(tmp_path: Path) -> None:
    match = match_of(tmp_path, strides=(100 * 128, 128, 1))
    with pytest.raises(ValueError, match="write them dense"):
        launches_of(match)


@pytest.mark.parametrize("form", BOTH)
def test_a_form_fits_the_device(form: IndexForm) -> None:
    """With pages under way for all key groups, behind two tiles of queries where these fit."""
    assert form.shared_bytes <= CUDA_SM90A.shared_memory_bytes
    assert form.stages >= 6
    assert form.tiles == (1 if form.element_bytes * form.rows > 8 else 2)


def test_a_device_with_less_shared_memory_has_fewer_pages_under_way(tmp_path: Path) -> None:
    smaller = msgspec.structs.replace(CUDA_SM90A, shared_memory_bytes=160 << 10)
    _, scored = launches_of(match_of(tmp_path, 2048, 4, target=smaller))
    assert 0 < scored.shared_bytes <= smaller.shared_memory_bytes < ROOM


@needs_nvcc
def test_it_compiles_to_the_same_bytes_in_two_folders(tmp_path: Path) -> None:
    """Without spilled registers or serialised products: these are refused."""
    made: list[dict[str, bytes]] = []
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        match = match_of(folder, 2048, 4, compiler=CudaCompiler(CUDA_SM90A))
        launches = launches_of(match)
        made.append({each.symbol: (folder / each.binary).read_bytes() for each in launches})
        assert match.compiled[launches[1].binary].shared_bytes == launches[1].shared_bytes
    assert made[0] == made[1]


@needs_nvcc
@pytest.mark.parametrize("form", BOTH)
def test_every_form_compiles(tmp_path: Path, form: IndexForm) -> None:
    source = KernelSource(
        language="cuda",
        path="index_logits.cu",
        symbol="sm90_index_logits",
        constants=form.constants(),
        num_warps=form.threads // 32,
    )
    kernel = CudaCompiler(CUDA_SM90A).compile(source, tmp_path)
    assert kernel.registers * form.threads <= 65536


@needs_nvcc
def test_another_size_of_shared_memory_does_not_compile(tmp_path: Path) -> None:
    constants = BOTH[0].constants()
    constants["SHARED_BYTES"] += 16
    source = KernelSource(
        language="cuda", path="index_logits.cu", symbol="sm90_index_logits", constants=constants
    )
    with pytest.raises(KernelCompileError, match="the launch gives another size"):
        CudaCompiler(CUDA_SM90A).compile(source, tmp_path)
