"""How long tiles of fp8 products take on Hopper, and so which tile a product is cut into.

The kernel is `kernels/fp8_products.cu`. Knows sizes, no op and no device.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lostwax.backends.lowering import Match
from lostwax.ir.contract.scale_layout import FP8_BLOCK

PART = 64
"""Rows of one product: a tile's parts without a row are neither loaded nor multiplied."""
WIDTHS = (16, 32, 48, 56, 64, 72, 80, 96, 112, 128, 144, 160, 192)
"""Columns of a tile, of each weight, that the kernel is written for."""
_MOST_SUMS = 192
"""Registers of a thread for what is multiplied and what is summed up."""
_RATE = 4096  # products of fp8 that a unit's matrix units make a cycle
_PORT = 64  # bytes that a unit takes a cycle
_CYCLES_A_US = 1600
_BLOCK_CYCLES, _TILE_CYCLES = 100, 2000
"""Of a block of K beside its products, and of a tile beside its blocks."""


@dataclass(frozen=True, slots=True)
class Extent:
    """A product: rows, columns of each weight, K, terms of x, weights, and the device's units."""

    rows: int
    columns: int
    k: int
    terms: int
    gated: bool
    units: int

    @property
    def weights(self) -> int:
        """How many it multiplies at once."""
        return 1 + self.gated


@dataclass(frozen=True, slots=True)
class TileSize:
    """Rows and columns (of each weight) of a tile, and CTAs that share its rows."""

    rows: int
    columns: int
    cluster: int


def waves(tile: TileSize, extent: Extent) -> int:
    """Turns of all clusters over a product's tiles."""
    tiles = -(-extent.rows // tile.rows) * -(-extent.columns // (tile.columns * tile.cluster))
    return -(-tiles // (extent.units // tile.cluster))


def product_us(tile: TileSize, extent: Extent) -> float:
    """Microseconds of a product whose operands come in time."""
    columns = extent.weights * tile.columns
    rows = extent.terms * tile.rows
    multiplied = rows * columns * FP8_BLOCK / _RATE
    taken = (rows + columns) * FP8_BLOCK / _PORT
    blocks = -(-extent.k // FP8_BLOCK)
    each = blocks * (max(multiplied, taken) + _BLOCK_CYCLES) + _TILE_CYCLES
    return waves(tile, extent) * each / _CYCLES_A_US


def fits_registers(tile: TileSize, *, gated: bool) -> bool:
    """Whether a warpgroup holds its sums, and the products of a block."""
    products = max(1, tile.rows // (2 * PART)) * (1 + gated)
    held = tile.columns // 2
    at_once = products if products * held <= PART else 1
    return (products + at_once) * held <= _MOST_SUMS and not (gated and tile.rows > 2 * PART)


def choose_tile(extent: Extent, sizes: Iterator[TileSize]) -> TileSize:
    """The one of them that takes least; of equals the first."""
    return min(sizes, key=lambda size: product_us(size, extent))


def tiled_flops(match: Match, value: str, tile: TileSize, extent: Extent) -> float:
    """Operations that the estimate takes to last as long, at the rate of the dtype of `value`."""
    return product_us(tile, extent) * match.target.tflops[match.dtype(value)] * 1e6
