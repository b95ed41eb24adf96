"""Lowerings of the indexer: logits, the set of the best, and both without the logits in memory."""

from __future__ import annotations

from dataclasses import replace

from lostwax.backends import predicates as P
from lostwax.backends.lowering import Knob, Knobs, Lowering, Match, Work
from lostwax.backends.portable.lowerings.calls import (
    copies_of_rows,
    emit_call,
    f32_bytes,
    launch,
    scale_view,
    torch_calls,
)
from lostwax.backends.portable.lowerings.prepared import row_requests
from lostwax.ir.contract.cache_layout import in_either_encoding
from lostwax.ir.contract.program import Const, Launch, View
from lostwax.ir.dialects.dsa import AllOp, IndexLogitsOp, TopkOp
from lostwax.ir.region import Node, Region

INDEX_TOPK = Region(
    {
        "logits": Node(
            "dsa.index_logits",
            {
                name: name
                for name in ("q", "weights", "cache_in", "positions", "q_starts", "page_table")
            },
        ),
        "topk": Node("dsa.topk", {"logits": "logits"}),
    },
    ("topk",),
)
"""8,192 rows of logits at 160k context are 5 GB: fused, only a tile of them exists."""

INDEX_LAYOUTS = P.layout("cache_in", "f32", "bf16", *in_either_encoding("index_paged", "index_row"))
READABLE = INDEX_LAYOUTS & P.row_blocks("q")

TOPK_CALLS = 10


def index_views(match: Match) -> tuple[View | None, ...]:
    """What the index kernels read, in their order."""
    return (
        match.view("q"),
        scale_view(match, "q"),
        match.view("weights"),
        match.view("cache_in"),
        match.view("positions"),
        match.step("requests"),
        match.view("page_table"),
    )


def columns(match: Match) -> int:
    """Positions of the longest request."""
    pages, page_tokens, _ = match.shape("cache_in")
    return pages * page_tokens


def _logits_work(match: Match, rows_at_once: int) -> Work:
    rows, heads, _ = match.shape("q")
    requests = match.shape("page_table")[0]
    work = match.work()
    meetings = 1 if rows_at_once <= requests else requests
    moved = work.num_bytes + 3 * meetings * f32_bytes(rows, heads, columns(match))
    return replace(work, num_bytes=moved, flops=work.flops * meetings, launches=4 + 6 * meetings)


def _logits_bytes(match: Match, rows: int) -> int:
    _, heads, dim = match.shape("q")
    requests = match.shape("page_table")[0]
    wide = columns(match)
    copies = copies_of_rows(match, "cache_in")
    keys = (rows if rows <= requests else 1) * copies * f32_bytes(wide, dim)
    queries = 2 * f32_bytes(rows, heads, dim)
    return keys + queries + f32_bytes(rows, heads, wide) + 4 * f32_bytes(rows, wide)


def topk_bytes(rows: int, wide: int) -> int:
    """Temporaries of the exact selection, a row of `wide` logits: masks, ranks, places."""
    return rows * wide * 40


def _emit_logits(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    views = (*index_views(match), match.view("op.out"))
    consts = {"scale": match.attr("op", "scale"), "layout": match.layout("cache_in")}
    return launch("portable_index_logits", "indexer:index_logits", views, consts)


def _emit_index_topk(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    views = (*index_views(match), match.view("topk"), match.workspace)
    consts: dict[str, Const] = {"scale": match.attr("logits", "scale"), **knobs}
    consts["layout"] = match.layout("cache_in")
    return launch("portable_index_topk", "indexer:index_topk", views, consts)


def _index_topk_work(match: Match, knobs: Knobs) -> Work:
    rows = match.shape("q")[0]
    tile = min(knobs["row_tile"], rows)
    work = _logits_work(match, tile)
    launches = (work.launches + TOPK_CALLS) * -(-rows // tile)
    moved = work.num_bytes + 20 * rows * columns(match)
    return replace(work, num_bytes=moved, launches=launches)


def _tile(match: Match, knobs: Knobs) -> int:
    return min(knobs["row_tile"], match.shape("q")[0])


def _topk_work(match: Match, knobs: Knobs) -> Work:
    work = match.work()
    rows, wide = match.shape("logits")
    return replace(work, num_bytes=work.num_bytes + 20 * rows * wide, launches=TOPK_CALLS)


INDEXER = (
    Lowering(
        name="portable_index_logits",
        pattern=Region.single(IndexLogitsOp),
        emit=_emit_logits,
        when=READABLE,
        prepare=row_requests,
        work=lambda match, knobs: _logits_work(match, match.shape("q")[0]),
        allocates=lambda match, knobs: _logits_bytes(match, match.shape("q")[0]),
    ),
    Lowering(
        name="portable_topk",
        pattern=Region.single(TopkOp),
        emit=emit_call("portable_topk", "selection:topk", "logits op.out"),
        row_invariant=True,
        work=_topk_work,
        allocates=lambda match, knobs: topk_bytes(*match.shape("logits")),
    ),
    Lowering(
        name="portable_all",
        pattern=Region.single(AllOp),
        emit=emit_call("portable_all", "selection:every", "positions op.out"),
        row_invariant=True,
        work=torch_calls(4),
        allocates=lambda match, knobs: 3 * f32_bytes(*match.shape("op.out")),
    ),
    Lowering(
        name="portable_index_topk",
        pattern=INDEX_TOPK,
        emit=_emit_index_topk,
        knobs=(Knob("row_tile", (128, 32, 8, 1, 1024)),),
        when=READABLE,
        prepare=row_requests,
        workspace=lambda match, knobs: f32_bytes(_tile(match, knobs), columns(match)),
        work=_index_topk_work,
        allocates=lambda match, knobs: (
            _logits_bytes(match, _tile(match, knobs))
            + topk_bytes(_tile(match, knobs), columns(match))
        ),
    ),
)
