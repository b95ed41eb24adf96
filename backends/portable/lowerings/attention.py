"""Lowerings of mla.attend, over a selection or fused with the choice of every position."""

from __future__ import annotations

from collections.abc import Callable

from lostwax.backends import predicates as P
from lostwax.backends.lowering import Knob, Knobs, Lowering, Match, Work
from lostwax.backends.portable.lowerings.calls import (
    copies_of_rows,
    f32_bytes,
    launch,
    scale_view,
)
from lostwax.backends.portable.lowerings.prepared import row_requests
from lostwax.ir.contract.cache_layout import in_either_encoding
from lostwax.ir.contract.program import Const, Launch
from lostwax.ir.dialects.mla import AttendOp
from lostwax.ir.region import Node, Region

DENSE = Region(
    {
        "all": Node("dsa.all", {"positions": "positions"}),
        "attend": Node(
            "mla.attend",
            {
                "q_nope": "q_nope",
                "q_pe": "q_pe",
                "kv_b": "kv_b",
                "cache_in": "cache_in",
                "selection": "all",
                "positions": "positions",
                "q_starts": "q_starts",
                "page_table": "page_table",
            },
        ),
    },
    ("attend",),
)
"""Every visible position: no selection is made or gathered. Both ops read the same positions."""

SPARSE = Region.single(AttendOp)

LATENT_LAYOUTS = P.layout("cache_in", "f32", "bf16", *in_either_encoding("fp8_656", "fp8_576"))
"""What the kernels read of caches: `kernels/paging.py` widens it."""
READABLE = LATENT_LAYOUTS & P.weight_blocks("kv_b")


class Sizes:
    """The sizes that attention's work depends on, by their usual letters."""

    def __init__(self, match: Match, is_dense: bool) -> None:
        self.T, self.H, self.Dn = match.shape("q_nope")
        self.R = match.shape("q_pe")[2]
        rows, self.C = match.shape("kv_b")
        self.Dv = rows // self.H - self.Dn
        pages, page_tokens, self.W = match.shape("cache_in")
        if is_dense:  # where all is selected, the guard promises that no request is longer
            pages = min(pages, -(-int(match.attr("all", "k")) // page_tokens))
        self.S = pages * page_tokens
        self.B = match.shape("page_table")[0]
        self.K = self.S if is_dense else match.shape("selection")[1]
        self.row_copies = copies_of_rows(match, "cache_in")
        self.kv_b_bytes = f32_bytes(rows, self.C)
        self.io_bytes = f32_bytes(self.T, self.H, self.Dn + self.R + self.Dv)


def absorbed_work(s: Sizes, launches: int) -> Work:
    """K cached rows are copied for every row, then read twice."""
    flops = 2 * s.T * s.H * (s.C * (s.Dn + s.Dv) + s.K * (2 * s.C + s.R))
    moved = 4 * f32_bytes(s.T, s.K, s.W) + s.kv_b_bytes + s.io_bytes
    return Work(moved, flops, launches)


def expanded_work(s: Sizes, launches: int, requests_a_row: int) -> Work:
    """Keys and values of every request are made once; a row meets those of `requests_a_row`."""
    heads = s.H * (s.Dn + s.Dv)
    flops = 2 * s.B * s.S * s.C * heads
    flops += 2 * s.T * s.S * s.H * (s.Dn + s.R + s.Dv) * requests_a_row
    made = 3 * f32_bytes(s.B, s.S, heads + s.W)
    scores = 6 * f32_bytes(s.T, s.H, s.S) * requests_a_row
    return Work(made + scores + s.kv_b_bytes + s.io_bytes, flops, launches)


def absorbed_bytes(s: Sizes, tile: int) -> int:
    """Temporaries of the absorbed form with `tile` rows at a time."""
    tile = min(tile, s.T)
    rows = s.row_copies * f32_bytes(tile, s.K, s.W) + 3 * f32_bytes(tile, s.H, s.K)
    heads = f32_bytes(tile, s.H, 4 * s.W + s.Dn + s.R + s.Dv)
    return rows + heads + 2 * s.kv_b_bytes


def expanded_bytes(s: Sizes, tile: int) -> int:
    """Temporaries of the expanded form with `tile` rows at a time."""
    tile = min(tile, s.T)
    keys = 2 * f32_bytes(s.S, s.H * (s.Dn + s.Dv)) + s.row_copies * f32_bytes(s.S, s.W)
    heads = f32_bytes(tile, s.H, 2 * (s.Dn + s.R) + 3 * s.Dv)
    return keys + 4 * f32_bytes(s.H, tile, s.S) + s.T * (s.S + 1) * 13 + 2 * s.kv_b_bytes + heads


def attend_lowering(
    name: str,
    function: str,
    *,
    is_dense: bool,
    which: tuple[str, ...] = ("positions",),
    tiles: tuple[int, ...],
    work: Callable[[Sizes, int], Work],
    allocates: Callable[[Sizes, int], int],
) -> Lowering:
    """A lowering whose kernel takes (q_nope, q_pe, kv_b, scales, cache, which, requests, …)."""
    node = "attend" if is_dense else "op"
    out = "attend" if is_dense else "op.out"

    def emit(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
        views = (
            match.view("q_nope"),
            match.view("q_pe"),
            match.view("kv_b"),
            scale_view(match, "kv_b"),
            match.view("cache_in"),
            *map(match.view, which),
            match.step("requests"),
            match.view("page_table"),
            match.view(out),
        )
        consts: dict[str, Const] = {"scale": match.attr(node, "scale"), **knobs}
        consts["layout"] = match.layout("cache_in")
        if is_dense:
            consts["limit"] = match.attr("all", "k")
        return launch(name, function, views, consts)

    return Lowering(
        name=name,
        pattern=DENSE if is_dense else SPARSE,
        emit=emit,
        when=READABLE,
        knobs=(Knob("row_tile", tiles),),
        prepare=row_requests,
        work=lambda match, knobs: work(Sizes(match, is_dense), knobs["row_tile"]),
        allocates=lambda match, knobs: allocates(Sizes(match, is_dense), knobs["row_tile"]),
    )


def _tiles(s: Sizes, tile: int) -> int:
    return -(-s.T // tile)


def _absorbed(s: Sizes, tile: int) -> Work:
    return absorbed_work(s, 3 + 18 * _tiles(s, tile))


def _expanded(s: Sizes, tile: int) -> Work:
    return expanded_work(s, 6 + s.B * (4 + 12 * _tiles(s, tile)), s.B)


ATTENTION = (
    attend_lowering(
        "portable_attend_absorbed",
        "attention:attend_absorbed",
        is_dense=False,
        which=("selection",),
        tiles=(64, 16, 256),
        work=_absorbed,
        allocates=absorbed_bytes,
    ),
    attend_lowering(
        "portable_attend_expanded",
        "attention:attend_expanded",
        is_dense=False,
        which=("selection", "positions"),
        tiles=(128, 32, 512),
        work=_expanded,
        allocates=expanded_bytes,
    ),
    attend_lowering(
        "portable_attend_dense_absorbed",
        "attention:attend_dense_absorbed",
        is_dense=True,
        tiles=(64, 16, 256),
        work=_absorbed,
        allocates=absorbed_bytes,
    ),
    attend_lowering(
        "portable_attend_dense_expanded",
        "attention:attend_dense_expanded",
        is_dense=True,
        tiles=(128, 32, 512),
        work=_expanded,
        allocates=expanded_bytes,
    ),
)
