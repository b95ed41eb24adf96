"""What each step of a weight plan does with a piece of a weight, on torch or numpy. Knows no file.

A piece says where in the whole it lies, so that a large weight is formed a piece at a time. Results
are those of `ir/reference/weight_forms.py`, in bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias

from lostwax.ir.contract.ranks import Rank
from lostwax.ir.contract.scale_layout import ScaleLayout
from lostwax.ir.contract.weight_types import FormType
from lostwax.ir.contract.weights import (
    Cast,
    Concat,
    Dequantise,
    Pad,
    Reencode,
    Requantise,
    Select,
    Split,
    Stack,
    Step,
    Tile,
    Transpose,
)

LEAST_SCALE = 2.0**-126  # the least normal number: a block of zeros has a scale, too

Values: TypeAlias = Any
"""A torch tensor, or a numpy array."""
Dtype: TypeAlias = Any
"""An element type of the same."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Values from `start` (an index of each axis of the whole), with the scales of their blocks.

    A piece begins where a block begins, or the whole axis lies in one block.
    """

    values: Values
    scales: Values | None
    start: tuple[int, ...]


class Numbers(Protocol):
    """What torch and numpy do each in its own way; both are cut and reshaped alike."""

    @property
    def dtypes(self) -> Mapping[str, Dtype]:
        """Element types by name."""
        ...

    def zeros(self, shape: tuple[int, ...], dtype: str) -> Values:
        """Zero bytes, in host memory."""
        ...

    def cast(self, values: Values, dtype: str) -> Values:
        """Rounded once, to nearest even."""
        ...

    def widened(self, values: Values, scales: Values, rows: int, cols: int) -> Values:
        """In f32, times the scale of its block of `rows` x `cols` of the last two axes."""
        ...

    def requantise(self, values: Values, dtype: str, scale: ScaleLayout) -> tuple[Values, Values]:
        """Values in fp8 or si8, the largest of each block at its largest, and their scales."""
        ...

    def doubled(self, scales: Values) -> Values:
        """Twice the scales, in f32."""
        ...

    def reencode(self, values: Values) -> Values:
        """e4m3fn as e4m3fnuz: the same bits, which mean half. -0 becomes 0, NaN NaN."""
        ...

    def permuted(self, values: Values, perm: tuple[int, ...]) -> Values:
        """The axes in another order."""
        ...

    def padded(self, values: Values, multiples: tuple[int, ...]) -> Values:
        """Zero bytes behind each axis; pieces that are padded are whole but for a stacked axis."""
        ...

    def all_finite(self, values: Values) -> bool:
        """Whether there is neither NaN nor infinity."""
        ...


def take(
    step: Step, piece: Piece, given: FormType, rank: Rank, place: int, numbers: Numbers
) -> Piece | None:
    """The piece after a step, None where the rank's share has nothing of it.

    `given` is what the whole is before the step, `place` the piece's along a stacked axis, or where
    its part begins along a joined one.
    """
    match step:
        case Select(of):
            return _selected(piece, given, of)
        case Split(axis):
            return _shared(piece, given, axis + len(given.shape), rank)
        case Cast(dtype):
            return replace(piece, values=numbers.cast(piece.values, dtype))
        case Dequantise(dtype):
            assert piece.scales is not None  # read for plans that dequantise
            wide = numbers.widened(piece.values, piece.scales, *_blocks(given)[-2:])
            return replace(piece, values=numbers.cast(wide, dtype), scales=None)
        case Requantise(dtype, scale):
            values, scales = numbers.requantise(piece.values, dtype, scale)
            return replace(piece, values=values, scales=scales)
        case Reencode():
            scales = None if piece.scales is None else numbers.doubled(piece.scales)
            return replace(piece, values=numbers.reencode(piece.values), scales=scales)
        case _:
            return _moved(step, piece, place, numbers)


def _moved(
    step: Stack | Transpose | Pad | Tile | Concat, piece: Piece, place: int, numbers: Numbers
) -> Piece:
    """After a step that changes no number."""
    match step:
        case Stack():
            return replace(piece, values=piece.values[None], start=(place, *piece.start))
        case Transpose(perm):
            start = tuple(piece.start[i] for i in perm)
            return replace(piece, values=numbers.permuted(piece.values, perm), start=start)
        case Pad(multiples):
            return replace(piece, values=numbers.padded(piece.values, multiples))
        case Tile(tile):
            return _tiled(piece, tile, numbers)
        case Concat(axis):
            start = list(piece.start)
            start[axis] += place
            return replace(piece, start=tuple(start))


def _blocks(given: FormType) -> tuple[int, ...]:
    """How many values of each axis lie under one scale."""
    assert given.scale is not None  # as the plan's check has found
    batch = len(given.shape) - 2
    return (*(1,) * batch, *given.scale.block(given.shape))


def _selected(piece: Piece, given: FormType, of: str) -> Piece:
    if of == "values":
        return replace(piece, scales=None)
    assert piece.scales is not None  # read for plans that select them
    start = tuple(at // block for at, block in zip(piece.start, _blocks(given), strict=True))
    return Piece(piece.scales, None, start)


def _along(values: Values, axis: int, start: int, stop: int) -> Values:
    """A part of one axis."""
    return values[(slice(None),) * axis + (slice(start, stop),)]


def _shared(piece: Piece, given: FormType, axis: int, rank: Rank) -> Piece | None:
    first, stop = rank.bounds(given.shape[axis])
    begin = piece.start[axis]
    low, high = max(first, begin), min(stop, begin + piece.values.shape[axis])
    if low >= high:
        return None
    values, scales = _along(piece.values, axis, low - begin, high - begin), piece.scales
    if scales is not None:
        block = _blocks(given)[axis]
        base, top = low // block, -(-high // block)
        scales = _along(scales, axis, base - begin // block, top - begin // block)
    start = (*piece.start[:axis], low - first, *piece.start[axis + 1 :])
    return Piece(values, scales, start)


def _tiled(piece: Piece, tile: tuple[int, ...], numbers: Numbers) -> Piece:
    first, count = piece.values.ndim - len(tile), len(tile)
    batch, inner = piece.values.shape[:first], piece.values.shape[first:]
    cut = [n for size, t in zip(inner, tile, strict=True) for n in (size // t, t)]
    order = [first + 2 * i for i in range(count)] + [first + 2 * i + 1 for i in range(count)]
    values = numbers.permuted(piece.values.reshape(*batch, *cut), (*range(first), *order))
    outer = [at // t for at, t in zip(piece.start[first:], tile, strict=True)]
    return Piece(values, None, (*piece.start[:first], *outer, *(0,) * count))
