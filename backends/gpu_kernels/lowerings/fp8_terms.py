"""Activations as kernels multiply them with fp8 weights: as they come, or in two terms.

Knows no op and no device.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from lostwax.backends.gpu_kernels.lowerings.launches import (
    Carver,
    Tiles,
    encoding,
    i32,
    real_rows,
    triton_launch,
)
from lostwax.backends.lowering import Match
from lostwax.ir.contract.program import Launch, View
from lostwax.ir.contract.scale_layout import FP8_BLOCK

BLOCKS = 8  # of 128 columns that a program quantises


@dataclass(frozen=True, slots=True)
class Terms:
    """Rows in fp8: all rows of the first term, then of the second where there are two.

    `values` [terms * rows, width], `scale` f32 with its strides from row to row and from block to
    block. `launches` make them.
    """

    values: View
    count: int
    scale: View
    scale_row: int
    scale_block: int
    launches: tuple[Launch, ...]

    def tiles(self, rows: int) -> Tiles:
        """The values in tiles of so many rows and one block."""
        return Tiles(self.values, (rows, FP8_BLOCK))


def fp8_of(match: Match) -> str:
    """The element type of fp8 that the target's matrix units multiply."""
    assert match.target.fp8_encoding is not None  # `fp8_units`
    return match.target.fp8_encoding


def num_terms(match: Match, value: str) -> int:
    """Terms in which the value is multiplied: one of fp8 with scales, of bf16 two."""
    return 1 if match.is_scaled(value) else 2


def carve_terms(match: Match, value: str, carver: Carver) -> tuple[View, View] | None:
    """Places for two terms and their scales; None for a value that needs none."""
    if match.is_scaled(value):
        return None
    rows, width = match.shape(value)
    values = carver.take(fp8_of(match), 2 * rows, width)
    return values, carver.take("f32", -(-width // FP8_BLOCK), rows)


def num_parts(width: int) -> int:
    """Programs that quantise a row."""
    return -(-width // (FP8_BLOCK * BLOCKS))


def terms_in(match: Match, value: str, places: tuple[View, View] | None) -> Terms:
    """The value's terms, given by others, or to be made in `carve_terms`'s places by a launch that
    is the caller's."""
    rows, x = match.shape(value)[0], match.view(value)
    if places is None:
        scale = match.view(f"{value}:scale")
        return Terms(x, 1, scale, scale.strides[0], scale.strides[1], ())
    return Terms(places[0], 2, places[1], 1, rows, ())


def terms_of(match: Match, value: str, carver: Carver, op: str) -> Terms:
    """The value's terms, made in carved memory where it has bf16 numbers."""
    rows, width = match.shape(value)
    terms = terms_in(match, value, carve_terms(match, value, carver))
    x = match.view(value)
    if terms.count == 1:
        return terms
    launch = triton_launch(
        match,
        "lostwax.backends.gpu_kernels.fp8_terms:quantise_rows",
        {
            "x": x,
            "terms": terms.values,
            "scale": terms.scale,
            "real_rows": real_rows(match),
            "num_rows": i32(rows),
            "width": i32(width),
            "x_stride": i32(x.strides[0]),
            "scale_row": i32(terms.scale_row),
            "scale_block": i32(terms.scale_block),
        },
        {
            "BLOCK_SCALE": FP8_BLOCK,
            "BLOCKS": BLOCKS,
            "TERMS": 2,
            "POWER_OF_TWO": 1,
            **encoding(match.target),
            "ROUND_FIRST": 0,
        },
        grid=(rows, num_parts(width), 1),
        op=op,
        rows_of=("width", "x_stride"),
    )
    return replace(terms, launches=(launch,))
