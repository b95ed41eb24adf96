"""How products of many rows with block-scaled fp8 weights are cut for Hopper, and their launch.

The kernel is `kernels/fp8_products.cu`. Knows sizes, no op and no device.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

import msgspec

from lostwax.backends.cuda.lowerings.fp8_tiles import (
    LEAST_STAGES,
    PART,
    WIDTHS,
    Extent,
    TileSize,
    choose_tile,
    fits_registers,
)
from lostwax.backends.gpu_kernels.lowerings.fp8_terms import Terms
from lostwax.backends.gpu_kernels.lowerings.launches import Carver, i32, real_rows
from lostwax.backends.lowering import Knob, Knobs, Match
from lostwax.backends.predicates import axis_at_least, fact, fact_at_least
from lostwax.ir.contract.dtypes import DTYPE_BYTES
from lostwax.ir.contract.kernel import SHARED_BYTES, KernelSource
from lostwax.ir.contract.parameter import Pointer, Scalar, TensorMap
from lostwax.ir.contract.program import KernelLaunch, View
from lostwax.ir.contract.scale_layout import FP8_BLOCK

LEAST_ROWS = 33
"""Fewer are the smallest tile's half: kernels that stand the weight on the first side take them."""
_WARPGROUPS = 2  # that multiply, each every other part, or of 64 rows every other block of K
THREADS = 128 * (_WARPGROUPS + 1)
_MOST_CLUSTER = 2
_MOST_STAGES = 12
_TICKETS = 2  # of tiles that were taken, and of clusters that have ended
_BARRIERS_BYTES, _TOLD_BYTES, _COUNT_BYTES = 16, 64, 16  # behind the stages: of each, and of all
_TURNS = 16  # tiles of rows that take turns over the same weights

ROWS = Knob("tile_rows", (0, 64, 128, 256), takes_memory=False)
"""Of a tile, where not sorted by expert; 256 where not gated."""
COLUMNS = Knob("columns", (0, *WIDTHS), takes_memory=False)
"""Of a tile, of each weight; of gated ones at most 128."""
DYNAMIC, STATIC = 1, 2
"""Settings of the knob `dynamic`: clusters take the next tile, or each has its own."""
KNOBS = (
    Knob("cluster", (0, 1, 2), takes_memory=False),
    Knob("stages", (0, 2, 3, 4, 5, 6, 8, 10, 12), takes_memory=False),
    Knob("turns", (0, 4, 8, 16, 32), takes_memory=False),
    Knob("dynamic", (0, 1, 2)),
)
"""0 leaves it to `choose_form`."""

ON_HOPPER = fact("matrix_units", "wgmma") & fact_at_least("cluster_blocks", _MOST_CLUSTER)
"""What the kernel asks of the target."""
MANY_ROWS_ON_HOPPER = ON_HOPPER & axis_at_least("x", 0, LEAST_ROWS)
"""The same, and of the rows to be worth it."""


@dataclass(frozen=True, slots=True)
class ProductForm:
    """How a CTA multiplies.

    `turns` are tiles of rows that take turns over the same weights; `dynamic` clusters take the
    next tile that nobody has.
    """

    terms: int
    tile: TileSize
    gated: bool
    grouped: bool
    turns: int
    dynamic: bool

    @property
    def shared_bytes(self) -> int:
        """As `layout.h` adds it up; the kernel does not compile where the two differ."""
        stage = _stage_bytes(self.terms, self.tile, self.gated)
        return self.tile.stages * stage + _fixed_bytes(self.tile, self.gated)

    def constants(self, *, power_of_two: bool = False) -> dict[str, int]:
        """The kernel's macros; `power_of_two`: scales of what gated experts write."""
        return {
            "TERMS": self.terms,
            "PARTS": max(1, self.tile.rows // (_WARPGROUPS * PART)),
            "WAYS": 2 if self.tile.rows == PART else 1,
            "COLUMNS": self.tile.columns,
            "GATED": int(self.gated),
            "GROUPED": int(self.grouped),
            "STAGES": self.tile.stages,
            "CLUSTER": self.tile.cluster,
            "DYNAMIC": int(self.dynamic),
            "POWER_OF_TWO": int(power_of_two),
            SHARED_BYTES: self.shared_bytes,
        }


def _stage_bytes(terms: int, tile: TileSize, gated: bool) -> int:
    return FP8_BLOCK * (terms * tile.rows + (1 + gated) * tile.columns) + _BARRIERS_BYTES


def _fixed_bytes(tile: TileSize, gated: bool) -> int:
    """Beside the ring; tiles of one part have sums in f32 that one warpgroup hands to the other."""
    sums = DTYPE_BYTES["f32"] * PART * tile.columns * (1 + gated) if tile.rows == PART else 0
    return sums + _TOLD_BYTES + _COUNT_BYTES


def choose_form(extent: Extent, knobs: Knobs, *, grouped: bool = False) -> ProductForm:
    """By rule where knobs are 0; as many stages as fit at most.

    Experts have tiles of 128 rows, those of `place_pairs`; their clusters of two take the next
    tile, where a tile has more blocks of K than the ring, and one. Of other products each CTA has
    tiles of its own: sharing x saved 1 % at most, and cost up to 20 % (`fp8_tiles.py`).
    """
    tile = choose_tile(extent, tile_sizes(extent, knobs, grouped=grouped))
    is_dynamic = knobs["dynamic"] == DYNAMIC or (knobs["dynamic"] == 0 and grouped)
    return ProductForm(
        terms=extent.terms,
        tile=tile,
        gated=extent.gated,
        grouped=grouped,
        turns=knobs["turns"] or _TURNS,
        dynamic=is_dynamic and extent.k > FP8_BLOCK * (tile.stages + 1),
    )


def tile_sizes(extent: Extent, knobs: Knobs, *, grouped: bool = False) -> Iterator[TileSize]:
    """Tiles that the knobs and the product leave to choose from."""
    rows = _tile_rows(extent, knobs, grouped)
    widths = (knobs["columns"],) if knobs.get("columns") else WIDTHS
    if grouped and extent.gated:  # what it writes is quantised by blocks
        widths = (FP8_BLOCK,)
    cluster = knobs["cluster"] or 1 + grouped
    for height, width in product(rows, widths):
        tile = TileSize(height, width, cluster, stages=0)
        tile = replace(tile, stages=_stages(extent, tile, knobs["stages"] or _MOST_STAGES))
        if tile.stages >= LEAST_STAGES and fits_registers(tile, gated=extent.gated):
            yield tile


def _tile_rows(extent: Extent, knobs: Knobs, grouped: bool) -> tuple[int, ...]:
    """Tiles of one part where few of them stand above one another, of four where many do."""
    if grouped:
        return (2 * PART,)
    if knobs.get("tile_rows"):
        return (knobs["tile_rows"],)
    if extent.rows <= PART:
        return (PART,)
    return (PART, 2 * PART) if extent.rows <= 2 * PART else (2 * PART, 4 * PART)


def _stages(extent: Extent, tile: TileSize, wanted: int) -> int:
    stage = _stage_bytes(extent.terms, tile, extent.gated)
    stages = min(wanted, (extent.room_bytes - _fixed_bytes(tile, extent.gated)) // stage)
    return stages - stages % 2 if tile.rows == PART else stages  # a place is one warpgroup's


@dataclass(frozen=True, slots=True)
class Slots:
    """Where rows are pairs, sorted by expert: i32 [slots] and [tiles], of `place_pairs`."""

    pair_of_slot: View
    expert_of_tile: View


@dataclass(frozen=True, slots=True)
class Weight:
    """Values [experts * columns, K] fp8, f32 scales [experts, blocks of columns, blocks of K]."""

    values: View
    scale: View


def product_launch(
    match: Match,
    form: ProductForm,
    x: Terms,
    weights: tuple[Weight, ...],
    out: View,
    columns: int,
    op: str,
    *,
    slots: Slots | None = None,
    out_scale: View | None = None,
    power_of_two: bool = False,
) -> KernelLaunch:
    """The launch; of gated products `weights` are gate and up, of `columns` rows an expert each.

    `out` is [rows, columns] bf16 or f32, of plain experts a row each pair; of gated experts it is
    fp8 [terms * slots, columns], and `out_scale` [blocks of columns, slots].
    """
    rows = x.values.shape[0] // x.count
    blocks = -(-x.values.shape[1] // FP8_BLOCK)
    compiled = match.build(
        KernelSource(
            language="cuda",
            path="fp8_products.cu",
            symbol="sm90_fp8_products",
            constants=form.constants(power_of_two=power_of_two) | {"WIDE": int(out.dtype == "f32")},
            num_warps=THREADS // 32,
        )
    )
    first, last = weights[0], weights[-1]
    real = real_rows(match)
    return KernelLaunch(
        binary=compiled.binary,
        symbol=compiled.symbol,
        grid=grid_of(match, form, rows, columns),
        block=(THREADS, 1, 1),
        params=(
            tiles_of(x.values, PART),
            tiles_of(first.values, form.tile.columns),
            tiles_of(last.values, form.tile.columns),
            Pointer(x.scale),
            Pointer(first.scale),
            Pointer(last.scale),
            Pointer(out),
            Pointer(out_scale or out),
            Pointer(real),
            Pointer(slots.pair_of_slot if slots else real),
            Pointer(slots.expert_of_tile if slots else real),
            Scalar("i64", out.strides[-2]),
            i32(x.scale_row),
            i32(x.scale_block),
            i32(rows),
            i32(columns),
            i32(blocks),
            i32(-(-rows // form.tile.rows)),
            i32(form.turns),
            tickets_of(match, form),
        ),
        shared_bytes=form.shared_bytes,
        cluster=(form.tile.cluster, 1, 1),
        op=op,
    )


def tiles_of(view: View, rows: int) -> TensorMap:
    """Boxes of so many rows and one block of K."""
    return TensorMap(view=view, box=(rows, FP8_BLOCK), swizzle="128B", l2_promotion="128B")


def grid_of(match: Match, form: ProductForm, rows: int, columns: int) -> tuple[int, int, int]:
    """CTAs that run at once, no more clusters than tiles."""
    tile = form.tile
    tiles = -(-rows // tile.rows) * -(-columns // (tile.columns * tile.cluster))
    return min(tiles, match.target.compute_units // tile.cluster) * tile.cluster, 1, 1


def tickets_of(match: Match, form: ProductForm) -> Pointer:
    """Where clusters take tickets; anything where they have tiles of their own."""
    return Pointer(Carver(match.zeroed).take("i32", _TICKETS) if form.dynamic else real_rows(match))


def rows_between(view: View, first: int, count: int) -> View:
    """`count` rows of a matrix, from row `first` on."""
    offset = view.offset + first * view.strides[0] * DTYPE_BYTES[view.dtype]
    return msgspec.structs.replace(view, shape=(count, *view.shape[1:]), offset=offset)


def ticket_bytes(match: Match, knobs: Knobs) -> int:
    """Counters of what was taken, which are left zero."""
    return 0 if knobs["dynamic"] == STATIC else 4 * _TICKETS
