"""How long tiles of fp8 products take on Hopper, and so which tile a product is cut into.

The kernel is `kernels/fp8_products.cu`. Knows sizes, no op and no device. The constants are fitted
to `benchmarks/results/2026-11-29-h200-fp8-products-2.json`, which says how well.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lostwax.backends.lowering import Match
from lostwax.ir.contract.scale_layout import FP8_BLOCK

PART = 64
"""Rows of one product: a tile's parts without a row are neither loaded nor multiplied."""
WIDTHS = (16, 32, 48, 64, 80, 96, 112, 128, 160, 192)
"""Columns of a tile, of each weight, that the kernel is written for."""
LEAST_STAGES = 2
_JOINED = 96
"""Columns of gate, at most, that are multiplied with those of up at once."""
_MOST_SUMS = 192
"""Registers of a thread for what is multiplied and what is summed up."""
_MULTIPLYING = 2  # warpgroups
_CYCLES_A_US = 1600

# Cycles, of a block of K but for the last two.
_OF_COLUMN, _NARROW = 2, 40
"""A part's product by a column in the matrix units; fewer than 40 columns take as long as 40."""
_BYTES_A_CYCLE = 73  # of operands, that a unit takes
_LATENCY = 240  # from a product's start to its end, beside its columns
_ADD, _ADD_OF_TWO_BLOCKS = 1.3, 3.6
"""A lane's sum of a part, scaled and added; the same where the columns may lie in two blocks."""
_STARVED = 220
"""More, where a ring of two stages has one to multiply and one to load."""
_TILE = 2400
WRITE, WRITE_QUERIES = 0.83, 14.0
"""A column of a part, written as it is; turned, rotated and quantised, too."""

_TB_S = 4.3
"""Weights of few rows, read once."""
_START_US = 0.95
"""Beside what a launch costs, until the ring is full."""


@dataclass(frozen=True, slots=True)
class Extent:
    """A product: rows, columns of each weight, K, terms of x, the device's units, and how many
    bytes of shared memory a block there may take.

    `matrices` are the weights that are read (of experts: those chosen), `write` cycles of a part's
    column that is written.
    """

    rows: int
    columns: int
    k: int
    terms: int
    gated: bool
    units: int
    room_bytes: int
    matrices: float = 1
    write: float = WRITE

    @property
    def weights(self) -> int:
        """How many it multiplies at once."""
        return 1 + self.gated


@dataclass(frozen=True, slots=True)
class TileSize:
    """Rows and columns (of each weight) of a tile, CTAs that share its rows, stages of the ring."""

    rows: int
    columns: int
    cluster: int
    stages: int


def waves(tile: TileSize, extent: Extent) -> int:
    """Turns of all clusters over a product's tiles."""
    tiles = -(-extent.rows // tile.rows) * -(-extent.columns // (tile.columns * tile.cluster))
    return -(-tiles // (extent.units // tile.cluster))


def _together(*bounds: float) -> float:
    """Of what runs at once the longest, and more where several are near it."""
    return sum(bound**3 for bound in bounds) ** (1 / 3)


def _block_cycles(tile: TileSize, extent: Extent) -> float:
    """Of a block of K: by the matrix units, by its operands' way, by a warpgroup's turns."""
    joined = extent.weights if tile.columns <= _JOINED else 1  # gate and up as one product
    parts, columns = tile.rows // PART * extent.weights // joined, joined * tile.columns
    multiplied = extent.terms * max(columns, _NARROW) * _OF_COLUMN
    operands = FP8_BLOCK * (extent.terms * tile.rows + extent.weights * tile.columns)
    add = _ADD_OF_TWO_BLOCKS if FP8_BLOCK % tile.columns else _ADD
    turn = parts / _MULTIPLYING * (_LATENCY + multiplied + columns / 2 * add)
    starved = _STARVED if tile.stages == LEAST_STAGES else 0
    return _together(parts * multiplied, operands / _BYTES_A_CYCLE, turn + starved)


def product_us(tile: TileSize, extent: Extent) -> float:
    """Microseconds of a product, beside those of a launch."""
    written = tile.rows // PART * extent.weights * tile.columns * extent.write
    blocks = -(-extent.k // FP8_BLOCK)
    cycles = blocks * _block_cycles(tile, extent) + _TILE + written
    read = extent.matrices * extent.weights * extent.columns * extent.k
    moved = read + extent.rows * (extent.terms * extent.k + 2 * extent.columns)
    on_chip = waves(tile, extent) * cycles / _CYCLES_A_US
    return _together(on_chip, moved_us(moved)) + _START_US


def fits_registers(tile: TileSize, *, gated: bool) -> bool:
    """Whether a warpgroup holds its sums, and a product of a block."""
    products = max(1, tile.rows // (2 * PART)) * (1 + gated)
    fits = (products + 1) * tile.columns // 2 <= _MOST_SUMS
    return fits and not (gated and tile.rows > 2 * PART)


def choose_tile(extent: Extent, sizes: Iterable[TileSize]) -> TileSize:
    """The one of them that takes least; of equals the first."""
    return min(sizes, key=lambda size: product_us(size, extent))


def moved_us(num_bytes: float) -> float:
    """Microseconds in which so many bytes are moved."""
    return num_bytes / (1e6 * _TB_S)


def flops_of(match: Match, value: str, us: float) -> float:
    """Operations that the estimate takes to last so long, at the rate of the dtype of `value`."""
    return us * match.target.tflops[match.dtype(value)] * 1e6
