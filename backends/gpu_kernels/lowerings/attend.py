"""Absorbed MLA with keys split over programs, sparse or over all visible keys. Knows no device."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from lostwax.backends.gpu_kernels.lowerings.absorbed import (
    ABSORB_KNOB,
    ENDS,
    PLAIN,
    End,
    absorb_launch,
    is_own,
    is_wide,
)
from lostwax.backends.gpu_kernels.lowerings.attend_blocks import (
    MIN_DOT,
    Blocks,
    SplitPlan,
    block_of,
    choose_blocks,
)
from lostwax.backends.gpu_kernels.lowerings.fp8_rows import as_bytes
from lostwax.backends.gpu_kernels.lowerings.launches import (
    Carver,
    encoding,
    f32,
    i32,
    next_power_of_two,
    real_rows,
    triton_launch,
)
from lostwax.backends.lowering import Knob, Knobs, Lowering, Match, Work
from lostwax.backends.predicates import Predicate, dtype, encoded_layout, of_rows, plain
from lostwax.ir.contract.cache_layout import LAYOUTS, CacheLayout
from lostwax.ir.contract.program import Launch, View
from lostwax.ir.dialects.mla import AttendOp
from lostwax.ir.region import Node, Region

_KERNELS = "lostwax.backends.gpu_kernels.sparse_attention"
_MAX_LATENT = 512  # a block of heads accumulates the whole latent row in registers
_BLOCK_REQS = 32  # requests whose ends are read at once
_MIN_SPLITS = 4  # fewer are padded: one kernel for all
_NUM_LAUNCHES = 3  # before what leaves

ATTEND_ALL_REGION = Region(
    {
        "selection": Node("dsa.all", {"positions": "positions"}),
        "op": Node(
            "mla.attend",
            {
                "q_nope": "q_nope",
                "q_pe": "q_pe",
                "kv_b": "kv_b",
                "cache_in": "cache_in",
                "selection": "selection",
                "positions": "positions",
                "q_starts": "q_starts",
                "page_table": "page_table",
            },
        ),
    },
    outputs=("op.out",),
)


@dataclass(frozen=True, slots=True)
class _Sizes:
    """What the kernels are specialised for, and how the work is cut."""

    rows: int
    heads: int
    latent: int
    rope: int
    page_tokens: int
    blocks: Blocks
    plan: SplitPlan

    @staticmethod
    def of(match: Match, knobs: Knobs) -> _Sizes:
        rows, heads, _ = match.shape("q_nope")
        latent, rope = match.parts("cache_in")
        pages, page_tokens, _ = match.shape("cache_in")
        keys = min(match.shape("selection")[1], pages * page_tokens)
        blocks = choose_blocks(rows, heads, keys, _dot_row(match), match.target, knobs)
        programs = rows * -(-heads // blocks.heads)
        plan = SplitPlan.of(
            keys, programs, blocks.keys, knobs["splits"], match.target.compute_units
        )
        return _Sizes(rows, heads, latent, rope, page_tokens, blocks, plan)


def _is_wide(match: Match) -> bool:
    """Whether the dots are taken in f32."""
    return match.dtype("q_nope") == "f32" or match.layout("cache_in") == "f32"


def _fp8(match: Match) -> CacheLayout | None:
    """The cache's layout where it is one of fp8."""
    form = LAYOUTS[match.layout("cache_in")]
    return form if form.dtypes[0].startswith("f8") else None


def _dot_row(match: Match) -> tuple[int, int]:
    """Padded elements of one key, and the bytes of each in the dots."""
    latent, rope = match.parts("cache_in")
    return block_of(latent) + block_of(rope), 4 if _is_wide(match) else 2


@dataclass(frozen=True, slots=True)
class _Scratch:
    """Tensors of the workspace: the absorbed query, attended latents, and what splits leave."""

    query: View
    latent: View
    partial: View
    partial_max: View
    partial_sum: View

    @staticmethod
    def of(sizes: _Sizes, dtype: str, carver: Carver) -> _Scratch:
        query = carver.take("f32", sizes.heads, sizes.rows, sizes.latent)
        latent = carver.take(dtype, sizes.heads, sizes.rows, sizes.latent)
        if sizes.plan.splits == 1:  # nothing to combine: the names stand for memory unused
            return _Scratch(query, latent, query, query, query)
        outer = (sizes.rows, sizes.heads, sizes.plan.splits)
        partial = carver.take("f32", *outer, sizes.latent)
        partial_max, partial_sum = carver.take("f32", *outer), carver.take("f32", *outer)
        return _Scratch(query, latent, partial, partial_max, partial_sum)


def _workspace(match: Match, knobs: Knobs, end: End) -> int:
    carver = Carver(None)
    _Scratch.of(_Sizes.of(match, knobs), match.dtype("q_nope"), carver)
    end.carve(match, carver)
    return carver.num_bytes


def _converted_bytes(match: Match, knobs: Knobs) -> int:
    """The f32 copies of the query and of the keys' half of kv_b, where they are made."""
    if is_own(match, knobs) or is_wide(match) or match.dtype("q_nope") == "f32":
        return 0
    rows, heads, nope = match.shape("q_nope")
    return 4 * heads * nope * (rows + match.shape("kv_b")[1])


def _work(match: Match, knobs: Knobs, end: End) -> Work:
    """Every block of heads reads a row's keys again, and scores them with each part of the query:
    64 rows of 128 heads took 700 us a layer on an H200 (2026-11-29, `python
    benchmarks/full_step.py`)."""
    base, sizes = match.work(), _Sizes.of(match, knobs)
    converted = _converted_bytes(match, knobs)
    moved = base.num_bytes + 2 * converted
    launches = _NUM_LAUNCHES + end.launches + 2 * bool(converted)
    width, element_bytes = _dot_row(match)
    form = _fp8(match)
    row_bytes = width * element_bytes if form is None else form.row_bytes(match.parts("cache_in"))
    blocks = -(-sizes.heads // sizes.blocks.heads)
    moved += (blocks - 1) * sizes.rows * sizes.plan.keys * row_bytes
    scores = 2 * sizes.rows * sizes.heads * sizes.plan.keys * (sizes.latent + sizes.rope)
    flops = base.flops + (knobs["query_parts"] - 1) * scores
    if sizes.plan.splits == 1:
        return Work(moved, flops, launches - 1)
    partial = 2 * 4 * sizes.rows * sizes.heads * sizes.plan.splits * sizes.latent
    return Work(moved + partial, flops, launches)


def _emit(match: Match, knobs: Knobs, name: str, dense: bool, end: End) -> tuple[Launch, ...]:
    sizes, carver = _Sizes.of(match, knobs), Carver(match.workspace)
    plan = sizes.plan
    scratch = _Scratch.of(sizes, match.dtype("q_nope"), carver)
    q_pe, cache, page_table = match.view("q_pe"), match.view("cache_in"), match.view("page_table")
    form = _fp8(match)
    cache = cache if form is None else as_bytes(cache)
    selection = match.view("positions" if dense else "selection")
    single = plan.splits == 1
    split = triton_launch(
        match,
        f"{_KERNELS}:attend_split",
        {
            "query": scratch.query,
            "query_rope": q_pe,
            "cache": cache,
            "selection": selection,
            "q_starts": match.view("q_starts"),
            "page_table": page_table,
            "partial": scratch.partial,
            "partial_max": scratch.partial_max,
            "partial_sum": scratch.partial_sum,
            "out": scratch.latent,
            "real_rows": real_rows(match),
            "num_rows": i32(sizes.rows),
            "keys": i32(plan.keys),
            "reqs": i32(match.shape("page_table")[0]),
            "splits": i32(plan.splits),
            "split_keys": i32(plan.split_keys),
            "selection_stride": i32(selection.strides[0]),
            "rope_row_stride": i32(q_pe.strides[0]),
            "rope_head_stride": i32(q_pe.strides[1]),
            "page_stride": i32(cache.strides[0]),
            "token_stride": i32(cache.strides[1]),
            "page_table_stride": i32(page_table.strides[0]),
            "scale": f32(float(match.attr("op", "scale"))),
        },
        {
            "HEADS": sizes.heads,
            "LATENT": sizes.latent,
            "ROPE": sizes.rope,
            "PAGE": sizes.page_tokens,
            "BLOCK_HEADS": sizes.blocks.heads,
            "BLOCK_KEYS": sizes.blocks.keys,
            "BLOCK_LATENT": block_of(sizes.latent),
            "BLOCK_ROPE": block_of(sizes.rope),
            "BLOCK_REQS": _BLOCK_REQS,
            "BYTES": int(form is not None),
            "SCALE_BLOCK": 0 if form is None else form.scale_block,
            **encoding(match.target),
            "DENSE": int(dense),
            "SINGLE": int(single),
            "QUERY_PARTS": knobs["query_parts"],
            "WIDE_DOT": int(_is_wide(match)),
        },
        grid=(sizes.rows, plan.splits, -(-sizes.heads // sizes.blocks.heads)),
        op=name,
        num_warps=sizes.blocks.num_warps,
        num_stages=knobs["num_stages"],
        rows_of=("rope_row_stride", "rope_head_stride", "page_stride", "token_stride"),
    )
    absorb = absorb_launch(match, knobs, scratch.query, name)
    leave = end.leave(match, knobs, scratch.latent, carver, name)
    if single:
        return absorb, split, *leave
    combine = triton_launch(
        match,
        f"{_KERNELS}:attend_combine",
        {
            "partial": scratch.partial,
            "partial_max": scratch.partial_max,
            "partial_sum": scratch.partial_sum,
            "out": scratch.latent,
            "real_rows": real_rows(match),
            "num_rows": i32(sizes.rows),
            "splits": i32(plan.splits),
        },
        {
            "HEADS": sizes.heads,
            "LATENT": sizes.latent,
            "BLOCK_SPLITS": max(_MIN_SPLITS, next_power_of_two(plan.splits)),
            "BLOCK_LATENT": next_power_of_two(sizes.latent),
        },
        grid=(sizes.rows, sizes.heads, 1),
        op=name,
    )
    return absorb, split, combine, *leave


def _same_dtype(value: str, other: str) -> Predicate:
    def refusal(match: Match) -> str | None:
        got, wanted = match.dtype(value), match.dtype(other)
        return None if got == wanted else f"{value} is {got}, {other} is {wanted}: wants them equal"

    return Predicate(refusal)


def _latent_at_most(bound: int) -> Predicate:
    def refusal(match: Match) -> str | None:
        rank = match.parts("cache_in")[0]
        return None if rank <= bound else f"latent rank is {rank}, wants <= {bound}"

    return Predicate(refusal)


def _scales_are_whole(match: Match) -> str | None:
    """Rows of bytes are read by whole numbers, and their scales a block each."""
    form, row = _fp8(match), match.parts("cache_in")
    if form is None or not form.scale_block:
        return None
    size, latent = form.row_bytes(row), block_of(row[0])
    fits = size % 4 == 0 and row[0] % 4 == 0 and latent % form.scale_block in (0, latent)
    return None if fits else f"rows of {size} bytes have scales where no whole number lies"


def _fits_shared_memory() -> Predicate:
    """The smallest blocks fit into the target's shared memory."""

    def refusal(match: Match) -> str | None:
        width, _ = row = _dot_row(match)
        need = Blocks(MIN_DOT, 16, 1).shared_bytes(*row, match.target)
        has = match.target.shared_memory_bytes
        if need <= has:
            return None
        return f"target fact shared_memory_bytes is {has}, wants >= {need} for rows of {width}"

    return Predicate(refusal)


_WHEN = (
    dtype("q_nope", "f32", "bf16")
    & plain("kv_b")
    & _same_dtype("kv_b", "q_nope")
    & encoded_layout("cache_in", "f32", "bf16", "fp8_656", "fp8_576")
    & Predicate(_scales_are_whole)
    & _latent_at_most(_MAX_LATENT)
    & _fits_shared_memory()
    & of_rows("q_nope")
)
_KNOBS = (
    Knob("splits", (0, 1, 2, 4, 8, 16, 32, 64)),
    Knob("block_keys", (0, 16, 32, 64)),
    Knob("block_heads", (0, 16, 32, 64)),
    Knob("num_warps", (0, 2, 4, 8)),
    Knob("num_stages", (2, 1, 3)),
    Knob("query_parts", (2, 1)),
)


def _lowering(name: str, attention: Region, dense: bool, end: End) -> Lowering:
    name += end.suffix
    return Lowering(
        name=name,
        pattern=end.region(attention),
        emit=lambda match, knobs: _emit(match, knobs, name, dense, end),
        when=_WHEN & end.when,
        knobs=(*_KNOBS, ABSORB_KNOB) if end is PLAIN else _KNOBS,
        workspace=partial(_workspace, end=end),
        zeroed=lambda match, knobs: end.zeroed(match),
        work=partial(_work, end=end),
        allocates=_converted_bytes,
    )


ATTENDS = tuple(
    _lowering("smxx_mla_attend_splitkv", Region.single(AttendOp), dense=False, end=end)
    for end in ENDS
)
ATTENDS_ALL = tuple(
    _lowering("smxx_mla_attend_all_splitkv", ATTEND_ALL_REGION, dense=True, end=end) for end in ENDS
)
ATTEND, ATTEND_ALL = ATTENDS[0], ATTENDS_ALL[0]
