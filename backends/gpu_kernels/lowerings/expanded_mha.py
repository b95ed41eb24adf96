"""Attention in the expanded form by Triton kernels, causal or to a selection. Knows no device.

A pair of a row and a key takes 640 operations a head, in the absorbed form 2,176, and a context's
position 262,144 once to expand: so this is the cheaper way for prompts, up to contexts that a rule
of operations alone bounds; **nothing of it was timed, or run on a device**.
"""

from __future__ import annotations

from functools import partial

from lostwax.backends.gpu_kernels.lowerings.attend import ATTEND_ALL_REGION
from lostwax.backends.gpu_kernels.lowerings.expanded import (
    HEADS_KNOB,
    LEAST_TOKENS,
    NOPE,
    VALUE,
    Contexts,
    Heads,
    context_rows,
    expanded_work,
    has_heads,
    head_groups,
    longest_context,
    many_tokens,
    part,
    selects_some,
)
from lostwax.backends.gpu_kernels.lowerings.fp8_rows import as_bytes
from lostwax.backends.gpu_kernels.lowerings.launches import (
    Carver,
    Tiles,
    encoding,
    f32,
    i32,
    maps,
    real_rows,
    triton_launch,
)
from lostwax.backends.gpu_kernels.lowerings.lds import stages
from lostwax.backends.gpu_kernels.lowerings.ranks import LATENT, ROPE, has_ranks
from lostwax.backends.lowering import Knob, Knobs, Lowering, Match, Work, asks_for_none
from lostwax.backends.predicates import Predicate, dtype, encoded_layout, of_rows, plain
from lostwax.ir.contract.cache_layout import LAYOUTS
from lostwax.ir.contract.kernel import KernelSource
from lostwax.ir.contract.program import KernelLaunch, Launch, View
from lostwax.ir.contract.step_kernel import StepKernel
from lostwax.ir.dialects.mla import AttendOp
from lostwax.ir.region import Region

_KERNELS = "lostwax.backends.gpu_kernels.expanded_attention"
_PRODUCT = "lostwax.backends.gpu_kernels.plain_tiles:plain_tiles"
STARTS = "expanded_mha_starts"
_BLOCK_REQS = 64
_GATHERED = 16  # rows of a program
_MARKED = 1024  # positions of a program
_PRODUCT_ROWS, _PRODUCT_N, _PRODUCT_K, _GROUP = 128, 128, 64, 8
_CONTEXTS_A_ROW = 4
_SELECTED = 2048  # config: index_topk
_OF_PAIR, _OF_SELECTED, _OF_POSITION = 640, 2176, 262144
_STEP, _MOST = 1024, 16384
"""Bounds on contexts are multiples of the one, and end at the other, as on Hopper."""


def most_contexts(rows: int, heads: int) -> int:
    """Positions of all requests together up to which this form takes fewer operations, in each step
    of a bucket of so many rows: half of them at least, all of one request."""
    fewest = rows // 2 + 1
    if rows < LEAST_TOKENS:
        return 0
    absorbed, own = fewest * _SELECTED * _OF_SELECTED, fewest * _OF_PAIR + _OF_POSITION
    return min(absorbed // own // _STEP * _STEP, _MOST)


def _num_tiles(match: Match, knobs: Knobs) -> int:
    """The most tiles of a step: a request's last one may have a single row."""
    rows, reqs, tile = match.shape("q_nope")[0], match.shape("page_table")[0], knobs["tile_rows"]
    return (rows + (tile - 1) * min(reqs, rows)) // tile


def _prepare(match: Match, knobs: Knobs) -> tuple[StepKernel]:
    reqs = match.shape("page_table")[0]
    constants = {"TILE_ROWS": knobs["tile_rows"], "BLOCK_REQS": _BLOCK_REQS}
    signature = {"q_starts": "*i32", "kv_lens": "*i32", "starts": "*i32", "reqs": "i32"}
    source = KernelSource(
        language="triton",
        path=_KERNELS,
        symbol="list_contexts",
        signature=signature | dict.fromkeys(constants, "constexpr"),
        constants=constants,
        num_warps=1,
    )
    outputs = ((STARTS, "i32", (2, reqs + 1)),)
    arguments = ("q_starts", "kv_lens", STARTS, i32(reqs))
    return (StepKernel(source=source, arguments=arguments, outputs=outputs, grid=(1, 1, 1)),)


def _carve(match: Match, knobs: Knobs, masked: bool, carver: Carver) -> tuple[Contexts, View]:
    """What is attended to; and marks, where there are any."""
    contexts = Contexts.of(match, knobs, carver)
    if not masked:
        return contexts, contexts.rope_keys
    return contexts, carver.take("u8", match.shape("q_nope")[0], longest_context(match))


def _workspace(match: Match, knobs: Knobs, masked: bool) -> int:
    carver = Carver(None)
    _carve(match, knobs, masked, carver)
    return carver.num_bytes


def _work(match: Match, knobs: Knobs, masked: bool) -> Work:
    """Of a selection contexts in the middle of those that are not selected whole and that the guard
    admits; else the longest."""
    most = context_rows(match)
    if not masked:
        return expanded_work(match, knobs, most, longest_context(match))
    rows, selected = match.shape("selection")
    contexts = (min(selected, most) + most) // 2
    work = expanded_work(match, knobs, contexts, min(contexts, longest_context(match)))
    moved = work.num_bytes + 5 * rows * selected + 2 * rows * longest_context(match)
    return Work(moved, work.flops, work.launches + 2)


def _gather(match: Match, contexts: Contexts, name: str) -> KernelLaunch:
    cache, table, rows = match.view("cache_in"), match.view("page_table"), context_rows(match)
    form = LAYOUTS[match.layout("cache_in")]
    if form.dtypes[0].startswith("f8"):
        cache = as_bytes(cache)
    return triton_launch(
        match,
        f"{_KERNELS}:gather_contexts",
        {
            "cache": cache,
            "starts": match.step(STARTS),
            "page_table": table,
            "latents": contexts.latents,
            "rope_keys": contexts.rope_keys,
            "reqs": i32(table.shape[0]),
            "rows": i32(rows),
            "page_stride": i32(cache.strides[0]),
            "token_stride": i32(cache.strides[1]),
            "page_table_stride": i32(table.strides[0]),
        },
        {
            "LATENT": LATENT,
            "ROPE": ROPE,
            "PAGE": match.shape("cache_in")[1],
            "BLOCK_KEYS": _GATHERED,
            "BLOCK_REQS": _BLOCK_REQS,
            "BYTES": int(form.dtypes[0].startswith("f8")),
            "SCALE_BLOCK": form.scale_block,
            **encoding(match.target),
            "WIDE_DOT": 0,
            "ROUND_FIRST": 0,
        },
        grid=(-(-rows // _GATHERED), 1, 1),
        op=name,
        rows_of=("page_stride", "token_stride"),
    )


def _expand(match: Match, contexts: Contexts, heads: Heads, name: str) -> KernelLaunch:
    columns, rows, starts = NOPE + VALUE, context_rows(match), match.step(STARTS)
    weight = part(match.view("kv_b"), 0, heads.first * columns, heads.count * columns)
    n = heads.count * columns
    flat = View(
        space=contexts.latents.space,
        name=contexts.latents.name,
        dtype="bf16",
        shape=(rows, LATENT),
        strides=(LATENT, 1),
        offset=contexts.latents.offset,
    )
    total = part(part(starts, 0, 0, 1), 1, starts.shape[1] - 1, 1)
    return triton_launch(
        match,
        _PRODUCT,
        {
            "x": Tiles(flat, (_PRODUCT_ROWS, _PRODUCT_K)),
            "weight": Tiles(weight, (_PRODUCT_N, _PRODUCT_K)),
            "out": contexts.expanded,
            "real_rows": total,
            "num_rows": i32(rows),
            "N": i32(n),
            "K": i32(LATENT),
            "out_stride": i32(n),
        },
        {
            "BLOCK_ROWS": _PRODUCT_ROWS,
            "BLOCK_N": _PRODUCT_N,
            "BLOCK_K": _PRODUCT_K,
            "GROUP": _GROUP,
            **maps(match.target),
            "WIDE_DOT": 0,
            "ROUND_FIRST": 0,
        },
        grid=(-(-rows // _PRODUCT_ROWS) * -(-n // _PRODUCT_N), 1, 1),
        op=name,
        num_stages=stages(match.target, 0, 3, 2 * _PRODUCT_K * (_PRODUCT_ROWS + _PRODUCT_N)),
        rows_of=("out_stride",),
    )


def _mark(match: Match, marks: View, name: str, value: int) -> KernelLaunch:
    selection, (rows, columns) = match.view("selection"), marks.shape
    width = selection.shape[1] if value else columns
    return triton_launch(
        match,
        f"{_KERNELS}:mark_selected",
        {
            "selection": selection,
            "marks": marks,
            "real_rows": real_rows(match),
            "columns": i32(columns),
            "selection_stride": i32(selection.strides[0]),
        },
        {"VALUE": value, "KEYS": selection.shape[1], "BLOCK": _MARKED},
        grid=(rows, -(-width // _MARKED), 1),
        op=name,
    )


def _attend(
    match: Match, knobs: Knobs, contexts: Contexts, marks: View, heads: Heads, name: str
) -> KernelLaunch:
    q_nope = part(match.view("q_nope"), 1, heads.first, heads.count)
    q_rope = part(match.view("q_pe"), 1, heads.first, heads.count)
    out = part(match.view("op.out"), 1, heads.first * VALUE, heads.count * VALUE)
    masked = marks is not contexts.rope_keys
    return triton_launch(
        match,
        f"{_KERNELS}:attend_expanded",
        {
            "q_nope": q_nope,
            "q_rope": q_rope,
            "expanded": contexts.expanded,
            "rope_keys": contexts.rope_keys,
            "marks": marks,
            "positions": match.view("positions"),
            "q_starts": match.view("q_starts"),
            "starts": match.step(STARTS),
            "out": out,
            "reqs": i32(match.shape("page_table")[0]),
            "heads": i32(heads.count),
            "columns": i32(marks.shape[1] if masked else 0),
            "nope_row_stride": i32(q_nope.strides[0]),
            "nope_head_stride": i32(q_nope.strides[1]),
            "rope_row_stride": i32(q_rope.strides[0]),
            "rope_head_stride": i32(q_rope.strides[1]),
            "out_stride": i32(out.strides[0]),
            "scale": f32(float(match.attr("op", "scale"))),
        },
        {
            "NOPE": NOPE,
            "ROPE": ROPE,
            "VALUE": VALUE,
            "TILE_ROWS": knobs["tile_rows"],
            "BLOCK_KEYS": knobs["block_keys"],
            "BLOCK_REQS": _BLOCK_REQS,
            "MASKED": int(masked),
            "WIDE_DOT": 0,
            "ROUND_FIRST": 0,
        },
        grid=(_num_tiles(match, knobs), heads.count, 1),
        op=name,
        num_warps=knobs["num_warps"],
        num_stages=knobs["num_stages"],
        rows_of=(
            "nope_row_stride", "nope_head_stride", "rope_row_stride", "rope_head_stride",
            "out_stride",
        ),
    )  # fmt: skip


def _emit(match: Match, knobs: Knobs, name: str, masked: bool) -> tuple[Launch, ...]:
    contexts, marks = _carve(match, knobs, masked, Carver(match.workspace))
    listed: list[Launch] = [_gather(match, contexts, name)]
    if masked:
        listed += [_mark(match, marks, name, value) for value in (0, 1)]
    for heads in head_groups(match, knobs):
        listed.append(_expand(match, contexts, heads, name))
        listed.append(_attend(match, knobs, contexts, marks, heads, name))
    return tuple(listed)


def _contexts_are_few(match: Match) -> str | None:
    """Their keys and values lie in the workspace: 17 GB of 128 requests of 2,048 positions."""
    contexts, most = context_rows(match), _CONTEXTS_A_ROW * match.shape("q_nope")[0]
    if contexts <= most:
        return None
    return f"contexts of {contexts} positions together, wants <= {most} in the workspace"


def _takes_fewer_operations() -> Predicate:
    def refusal(match: Match) -> str | None:
        rows, heads, _ = match.shape("q_nope")
        contexts, most = context_rows(match), most_contexts(rows, heads)
        if contexts <= most:
            return None
        return (
            f"contexts of {contexts} positions together, wants <= {most}: with more the absorbed"
            f" form takes fewer operations for {rows} rows"
        )

    return Predicate(refusal)


_WHEN = (
    dtype("q_nope", "bf16")
    & dtype("q_pe", "bf16")
    & plain("kv_b")
    & dtype("kv_b", "bf16")
    & encoded_layout("cache_in", "bf16", "fp8_656", "fp8_576")
    & has_ranks()
    & has_heads()
    & of_rows("q_nope")
    & many_tokens()
)
_KNOBS = (
    Knob("tile_rows", (128, 64)),
    Knob("block_keys", (32, 64, 16)),
    Knob("num_warps", (4, 8)),
    Knob("num_stages", (1, 2)),
    HEADS_KNOB,
)


def _lowering(name: str, pattern: Region, when: Predicate, masked: bool) -> Lowering:
    return Lowering(
        name=name,
        pattern=pattern,
        emit=partial(_emit, name=name, masked=masked),
        when=when,
        knobs=_KNOBS,
        prepare=_prepare,
        workspace=partial(_workspace, masked=masked),
        work=partial(_work, masked=masked),
        contexts_a_row=0 if masked else _CONTEXTS_A_ROW,
        selecting_contexts=most_contexts if masked else asks_for_none,
    )


CAUSAL_MHA = _lowering(
    "smxx_causal_mha", ATTEND_ALL_REGION, _WHEN & Predicate(_contexts_are_few), masked=False
)
MASKED_MHA = _lowering(
    "smxx_masked_mha",
    Region.single(AttendOp),
    _WHEN & selects_some() & _takes_fewer_operations(),
    masked=True,
)
EXPANDED_MHA = (CAUSAL_MHA, MASKED_MHA)
