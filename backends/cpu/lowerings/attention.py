"""Attention and the indexer's choice over real lengths, read on the host."""

from __future__ import annotations

from collections.abc import Callable

from lostwax.backends import predicates as P
from lostwax.backends.lowering import Knob, Knobs, Lowering, Match, Work
from lostwax.backends.portable.lowerings.attention import (
    DENSE,
    LATENT_LAYOUTS,
    SPARSE,
    Sizes,
    absorbed_work,
    expanded_bytes,
    expanded_work,
)
from lostwax.backends.portable.lowerings.calls import (
    Emit,
    copies_of_rows,
    f32_bytes,
    launch,
    scale_view,
)
from lostwax.backends.portable.lowerings.indexer import (
    INDEX_LAYOUTS,
    INDEX_TOPK,
    TOPK_CALLS,
    columns,
    topk_bytes,
)
from lostwax.ir.contract.program import Const, Launch

ON_HOST = P.not_captured() & P.host_memory()
ATTENTION = "lostwax.backends.cpu.kernels.attention:"


def _emit(name: str, function: str, *, is_dense: bool, takes_selection: bool) -> Emit:
    node, out = ("attend", "attend") if is_dense else ("op", "op.out")

    def emit(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
        chosen = (None if is_dense else match.view("selection"),) if takes_selection else ()
        views = (
            match.view("q_nope"),
            match.view("q_pe"),
            match.view("kv_b"),
            scale_view(match, "kv_b"),
            match.view("cache_in"),
            *chosen,
            match.view("positions"),
            match.view("q_starts"),
            match.view("page_table"),
            match.view(out),
        )
        limit = match.attr("all", "k") if is_dense else columns(match)
        consts: dict[str, Const] = {"scale": match.attr(node, "scale"), "limit": limit, **knobs}
        consts["layout"] = match.layout("cache_in")
        return launch(name, ATTENTION + function, views, consts, capturable=False)

    return emit


def _shared(s: Sizes) -> Sizes:
    """Sizes of a step whose rows are one request's, or one row a request: the usual ones.

    A bucket's bound on requests would charge an extend step for eight long prompts at once.
    """
    s.B = 1 if s.T > s.B else s.B
    return s


def _absorbed(match: Match, knobs: Knobs) -> Work:
    s = _shared(Sizes(match, is_dense=True))
    work = absorbed_work(s, 9 + 6 * s.B)
    gathered = 4 * f32_bytes(s.T - s.B, s.S, s.W)  # rows of one request share its cached rows
    scores = 4 * f32_bytes(s.T, s.H, s.S)
    return Work(work.num_bytes - gathered + scores, work.flops, work.launches)


def _expanded(is_dense: bool) -> Callable[[Match, Knobs], Work]:
    def work(match: Match, knobs: Knobs) -> Work:
        s = _shared(Sizes(match, is_dense))
        tiles = -(-s.T // knobs["row_tile"])
        return expanded_work(s, 6 + s.B * 4 + 14 * max(tiles, s.B), 1)

    return work


def _union_rows(s: Sizes, tile: int) -> int:
    """Positions that a tile of one request's rows selects together: they grow with the root of its
    rows. Of 3,500 that they see, the trained tiny model's selects 256 in a row, 1,040 to 1,090 in
    16 and 1,480 to 1,540 in 32 (medians of all layers, of a random prompt and of prose)."""
    rows = max(min(tile, s.T // s.B), 1)
    return min(s.S, round(s.K * rows**0.5))


def _union(match: Match, knobs: Knobs) -> Work:
    s = _shared(Sizes(match, is_dense=False))
    tiles = max(-(-s.T // knobs["row_tile"]), s.B)
    wide = _union_rows(s, knobs["row_tile"])
    flops = 2 * s.T * s.H * (s.C * (s.Dn + s.Dv) + wide * (2 * s.C + s.R))
    gathered = 4 * f32_bytes(tiles, wide, s.W)
    scores = 4 * f32_bytes(s.T, s.H, wide) + 3 * f32_bytes(s.T, s.S)
    return Work(gathered + scores + s.kv_b_bytes + s.io_bytes, flops, 10 + 18 * tiles)


def _union_bytes(match: Match, knobs: Knobs) -> int:
    s = Sizes(match, is_dense=False)
    tile = min(s.T, knobs["row_tile"])
    wide = min(s.S, tile * s.K)
    rows = s.row_copies * f32_bytes(wide, s.W) + 4 * f32_bytes(tile, s.H, wide)
    marks = 4 * f32_bytes(tile, s.S + 1) + 2 * 8 * wide
    heads = f32_bytes(s.T, s.H, 4 * s.W + s.Dn + s.R + s.Dv)
    return rows + marks + heads + 2 * s.kv_b_bytes


def _absorbed_bytes(match: Match, knobs: Knobs) -> int:
    s = Sizes(match, is_dense=True)
    tile = min(s.T, knobs["row_tile"])
    rows = s.row_copies * f32_bytes(s.S, s.W) + 4 * f32_bytes(tile, s.H, s.S)
    return rows + f32_bytes(tile, s.H, 4 * s.W + s.Dn + s.R + s.Dv) + 2 * s.kv_b_bytes


def _index_work(match: Match, knobs: Knobs) -> Work:
    rows, heads, _ = match.shape("q")
    spans = match.shape("page_table")[0] if rows <= match.shape("page_table")[0] else 1
    wide = columns(match)
    work = match.work()
    moved = work.num_bytes + 3 * f32_bytes(rows, heads, wide) + 20 * rows * wide
    tiles = max(-(-rows // knobs["row_tile"]), spans)
    return Work(moved, work.flops, 4 + 3 * spans + (6 + TOPK_CALLS) * tiles)


def _emit_index(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    names = ("weights", "cache_in", "positions", "q_starts", "page_table", "topk")
    views = (match.view("q"), scale_view(match, "q"), *(match.view(n) for n in names))
    consts: dict[str, Const] = {"scale": match.attr("logits", "scale"), **knobs}
    consts["layout"] = match.layout("cache_in")
    return launch(
        "cpu_index_topk",
        "lostwax.backends.cpu.kernels.indexer:index_topk",
        views,
        consts,
        capturable=False,
    )


def _index_bytes(match: Match, knobs: Knobs) -> int:
    rows, heads, dim = match.shape("q")
    tile, wide = min(rows, knobs["row_tile"]), columns(match)
    keys = copies_of_rows(match, "cache_in") * f32_bytes(wide, dim)
    scores = 2 * f32_bytes(tile, heads, wide) + 2 * f32_bytes(rows, heads, dim)
    return keys + scores + topk_bytes(tile, wide)


CPU_ATTENTION = (
    Lowering(
        name="cpu_attend_dense_absorbed",
        pattern=DENSE,
        emit=_emit(
            "cpu_attend_dense_absorbed",
            "attend_dense_absorbed",
            is_dense=True,
            takes_selection=False,
        ),
        when=ON_HOST & LATENT_LAYOUTS & P.weight_blocks("kv_b"),
        knobs=(Knob("row_tile", (64, 16, 256)),),
        work=_absorbed,
        allocates=_absorbed_bytes,
    ),
    Lowering(
        name="cpu_attend_dense_expanded",
        pattern=DENSE,
        emit=_emit(
            "cpu_attend_dense_expanded", "attend_expanded", is_dense=True, takes_selection=True
        ),
        when=ON_HOST & LATENT_LAYOUTS & P.weight_blocks("kv_b"),
        knobs=(Knob("row_tile", (128, 32, 512)),),
        work=_expanded(is_dense=True),
        allocates=lambda match, knobs: expanded_bytes(Sizes(match, True), knobs["row_tile"]),
    ),
    Lowering(
        name="cpu_attend_union",
        pattern=SPARSE,
        emit=_emit("cpu_attend_union", "attend_union", is_dense=False, takes_selection=True),
        when=ON_HOST & LATENT_LAYOUTS & P.weight_blocks("kv_b"),
        knobs=(Knob("row_tile", (32, 16, 64, 128)),),
        work=_union,
        allocates=_union_bytes,
    ),
    Lowering(
        name="cpu_attend_expanded",
        pattern=SPARSE,
        emit=_emit("cpu_attend_expanded", "attend_expanded", is_dense=False, takes_selection=True),
        when=ON_HOST & LATENT_LAYOUTS & P.weight_blocks("kv_b"),
        knobs=(Knob("row_tile", (128, 32, 512)),),
        work=_expanded(is_dense=False),
        allocates=lambda match, knobs: expanded_bytes(Sizes(match, False), knobs["row_tile"]),
    ),
    Lowering(
        name="cpu_index_topk",
        pattern=INDEX_TOPK,
        emit=_emit_index,
        when=ON_HOST & INDEX_LAYOUTS & P.row_blocks("q"),
        knobs=(Knob("row_tile", (128, 32, 512)),),
        work=_index_work,
        allocates=_index_bytes,
    ),
)
