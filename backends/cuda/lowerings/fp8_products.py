"""How products of many rows with block-scaled fp8 weights are cut for Hopper, and their launch.

The kernel is `kernels/fp8_products.cu`. Knows sizes, no op and no device.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from lostwax.backends.gpu_kernels.lowerings.fp8_linear import MANY_ROWS
from lostwax.backends.gpu_kernels.lowerings.fp8_terms import Terms
from lostwax.backends.gpu_kernels.lowerings.launches import Carver, i32, real_rows
from lostwax.backends.lowering import Knob, Knobs, Match
from lostwax.backends.predicates import axis_at_least, fact, fact_at_least
from lostwax.ir.contract.dtypes import DTYPE_BYTES
from lostwax.ir.contract.kernel import SHARED_BYTES, KernelSource
from lostwax.ir.contract.parameter import Pointer, Scalar, TensorMap
from lostwax.ir.contract.program import KernelLaunch, View
from lostwax.ir.contract.scale_layout import FP8_BLOCK

PART = 64
"""Rows of one product: a tile's parts without a row are neither loaded nor multiplied."""
_WARPGROUPS = 2  # that multiply, each every other part
_THREADS = 128 * (_WARPGROUPS + 1)
_MOST_CLUSTER = 2
_MOST_STAGES = 6
_TICKETS = 2  # of tiles that were taken, and of clusters that have ended
_BARRIERS_BYTES, _COUNT_BYTES = 32, 16  # behind the stages: of each, and of all
_SHARED_BYTES = 232448  # a block's at most, on Hopper
_TURNS = 16  # tiles of rows that take turns over the same weights
_SHARE = {1: 0.95, 2: 1.15}
"""Of the target's fp8 rate while all units have a tile, by terms: o and down of 2,048 rows,
`python benchmarks/fp8_prefill.py run FOLDER --out DIR`, one H200, 2026-11-29. The rate is that of a
whole product of cuBLAS, which waits for memory, too; two terms read their weights once."""
_WIDE_ROWS = 1024
"""Rows from which on a warpgroup may have two parts, and clusters share x: with fewer, alone."""

PARTS = Knob("parts", (0, 1, 2))
"""Of 64 rows a warpgroup, where neither gated nor sorted by expert."""
DYNAMIC, STATIC = 1, 2
"""Settings of the knob `dynamic`: clusters take the next tile, or each has its own."""
KNOBS = (
    Knob("cluster", (0, 1, 2)),
    Knob("stages", (0, 2, 3, 4, 5, 6)),
    Knob("turns", (0, 4, 8, 16, 32)),
    Knob("dynamic", (0, 1, 2)),
)
"""0 leaves it to `choose_form`."""

MANY_ROWS_ON_HOPPER = (
    fact("matrix_units", "wgmma")
    & fact_at_least("cluster_blocks", _MOST_CLUSTER)
    & axis_at_least("x", 0, MANY_ROWS)
)
"""What the kernel asks of the target, and of the rows to be worth it."""


@dataclass(frozen=True, slots=True)
class ProductForm:
    """How a CTA multiplies: `parts` of 64 rows a warpgroup; of gated products one, twice as wide.

    `turns` are tiles of rows that take turns over the same weights; `dynamic` clusters take the
    next tile that nobody has.
    """

    terms: int
    parts: int
    gated: bool
    grouped: bool
    stages: int
    cluster: int
    turns: int
    dynamic: bool

    @property
    def rows(self) -> int:
        """Of a tile."""
        return _WARPGROUPS * self.parts * PART

    @property
    def shared_bytes(self) -> int:
        """As `layout.h` adds it up; the kernel does not compile where the two differ."""
        stage = _stage_bytes(self.terms, self.rows, self.gated) + _BARRIERS_BYTES
        return self.stages * stage + _COUNT_BYTES

    def constants(self, *, power_of_two: bool = False) -> dict[str, int]:
        """The kernel's macros; `power_of_two`: scales of what gated experts write."""
        return {
            "TERMS": self.terms,
            "PARTS": self.parts,
            "GATED": int(self.gated),
            "GROUPED": int(self.grouped),
            "STAGES": self.stages,
            "CLUSTER": self.cluster,
            "DYNAMIC": int(self.dynamic),
            "POWER_OF_TWO": int(power_of_two),
            SHARED_BYTES: self.shared_bytes,
        }


def _stage_bytes(terms: int, rows: int, gated: bool) -> int:
    return FP8_BLOCK * (terms * rows + (1 + gated) * FP8_BLOCK)


@dataclass(frozen=True, slots=True)
class Extent:
    """Rows and columns of a product, and the device's units."""

    rows: int
    columns: int
    units: int

    def waves(self, rows: int, cluster: int) -> int:
        """Turns of all clusters over tiles of so many rows."""
        tiles = -(-self.rows // rows) * -(-self.columns // (FP8_BLOCK * cluster))
        return -(-tiles // (self.units // cluster))


def choose_form(
    terms: int,
    k: int,
    knobs: Knobs,
    extent: Extent,
    *,
    gated: bool = False,
    grouped: bool = False,
) -> ProductForm:
    """By rule where knobs are 0; as many stages as fit at most.

    Gated products and experts, whose tiles are those of `place_pairs`, have tiles of 128 rows.
    Clusters take the next tile only where a tile has more blocks of K than any ring, and one.

    The rule is within 4 % of the fastest setting, as a geometric mean over the shapes of V3.2 and
    256 to 4,096 rows: `python benchmarks/fp8_prefill.py run FOLDER --out DIR`, one H200,
    2026-11-29. Of 128-row tiles and one term, 256-row tiles take 0.96 of the time where they make
    no more waves; experts take 0.92 where clusters take the next tile, alone or two.
    """
    alone = terms == 1 and (gated or extent.rows < _WIDE_ROWS)
    cluster = knobs["cluster"] or (1 if alone else _MOST_CLUSTER)
    parts = 1
    if not gated and not grouped:
        one, two = (n * extent.waves(_WARPGROUPS * n * PART, cluster) for n in (1, 2))
        is_wide = terms == 1 and extent.rows >= _WIDE_ROWS and two <= one
        parts = knobs["parts"] or (2 if is_wide else 1)
    stage = _stage_bytes(terms, _WARPGROUPS * parts * PART, gated) + _BARRIERS_BYTES
    most = (_SHARED_BYTES - _COUNT_BYTES) // stage
    is_dynamic = knobs["dynamic"] == DYNAMIC or (knobs["dynamic"] == 0 and (gated or grouped))
    return ProductForm(
        terms=terms,
        parts=parts,
        gated=gated,
        grouped=grouped,
        stages=min(knobs["stages"] or _MOST_STAGES, most),
        cluster=cluster,
        turns=knobs["turns"] or _TURNS,
        dynamic=is_dynamic and k > FP8_BLOCK * (_MOST_STAGES + 1),
    )


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

    `out` is [rows, columns] bf16, of plain experts a row each pair; of gated experts it is fp8
    [terms * slots, columns], and `out_scale` [blocks of columns, slots].
    """
    rows = x.values.shape[0] // x.count
    blocks = -(-x.values.shape[1] // FP8_BLOCK)
    row_tiles = -(-rows // form.rows)
    column_turns = -(-columns // (FP8_BLOCK * form.cluster))
    clusters = min(row_tiles * column_turns, match.target.compute_units // form.cluster)
    compiled = match.build(
        KernelSource(
            language="cuda",
            path="fp8_products.cu",
            symbol="sm90_fp8_products",
            constants=form.constants(power_of_two=power_of_two),
            num_warps=_THREADS // 32,
        )
    )
    first, last = weights[0], weights[-1]
    real = real_rows(match)
    return KernelLaunch(
        binary=compiled.binary,
        symbol=compiled.symbol,
        grid=(clusters * form.cluster, 1, 1),
        block=(_THREADS, 1, 1),
        params=(
            _tiles(x.values, PART),
            _tiles(first.values, FP8_BLOCK),
            _tiles(last.values, FP8_BLOCK),
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
            i32(row_tiles),
            i32(form.turns),
            Pointer(Carver(match.zeroed).take("i32", _TICKETS) if form.dynamic else real),
        ),
        shared_bytes=form.shared_bytes,
        cluster=(form.cluster, 1, 1),
        op=op,
    )


def _tiles(view: View, rows: int) -> TensorMap:
    return TensorMap(view=view, box=(rows, FP8_BLOCK), swizzle="128B", l2_promotion="128B")


def rows_between(view: View, first: int, count: int) -> View:
    """`count` rows of a matrix, from row `first` on."""
    offset = view.offset + first * view.strides[0] * DTYPE_BYTES[view.dtype]
    return msgspec.structs.replace(view, shape=(count, *view.shape[1:]), offset=offset)


def ticket_bytes(match: Match, knobs: Knobs) -> int:
    """Counters of what was taken, which are left zero."""
    return 0 if knobs["dynamic"] == STATIC else 4 * _TICKETS


def waiting_flops(match: Match, form: ProductForm, flops: float, rows: int, columns: int) -> float:
    """Operations on fp8 as the estimate takes them: with the units that wait while the last tiles
    are multiplied, and for the share of the rate that was measured."""
    extent = Extent(rows, columns, match.target.compute_units)
    tiles = -(-rows // form.rows) * -(-columns // (FP8_BLOCK * form.cluster))
    clusters = extent.units // form.cluster
    return flops / _SHARE[form.terms] * (extent.waves(form.rows, form.cluster) * clusters / tiles)
