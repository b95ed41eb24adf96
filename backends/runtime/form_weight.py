"""Forms a stored weight of its sources, piece by piece, straight into its place. Knows no file.

What the plan's steps say is done and nothing else: a tensor of another dtype or shape than the
plan's is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import prod
from typing import NamedTuple, TypeAlias

from lostwax.backends.runtime.weight_steps import Numbers, Piece, Values, take
from lostwax.ir.contract.check_views import Inconsistent
from lostwax.ir.contract.ranks import Rank
from lostwax.ir.contract.scale_layout import scale_shape
from lostwax.ir.contract.weight_types import FormType, types_along
from lostwax.ir.contract.weights import (
    Cast,
    Concat,
    Dequantise,
    Pad,
    Reencode,
    Requantise,
    Select,
    Step,
    StoredWeight,
    Tile,
    WeightPart,
)

PIECE_ELEMENTS = 1 << 21
"""Of a source that is computed with at once: 8 MiB in f32, some five times that on the way."""


class SourceTensors(NamedTuple):
    """One source as read: the values, and their scales where the steps want them."""

    values: Values
    scales: Values | None = None


Read: TypeAlias = "Callable[[], SourceTensors]"
"""Reads a source when its turn comes, so that no two are held at once."""
Write: TypeAlias = Callable[[Values, Values], None]
"""Puts a piece (second) where it belongs (first: a view of the weight)."""


def wants_scales(steps: Sequence[Step]) -> bool:
    """Whether the steps read a source's scales."""
    return any(
        isinstance(step, Dequantise | Reencode) or step == Select("scales") for step in steps
    )


def reads_scales_alone(steps: Sequence[Step]) -> bool:
    """Whether scales are selected as they are given: not after numbers were rounded anew."""
    if Select("scales") not in steps:
        return False
    before = steps[: steps.index(Select("scales"))]
    return not any(isinstance(step, Requantise) for step in before)


def form_into(
    out: Values,
    stored: StoredWeight,
    parts: Sequence[Sequence[Read]],
    rank: Rank,
    write: Write,
    numbers: Numbers,
) -> None:
    """Form the weight in zeroed memory of its dtype and shape; `write` moves each piece there.

    `numbers` computes with the sources. Raises Inconsistent for a plan that does not fit, and for a
    source that is not what it says.
    """
    begin = 0
    for part, sources in zip(stored.parts, parts, strict=True):
        types = types_along(part, stored.steps, rank.count)
        if len(sources) != part.count:
            raise Inconsistent(f"{len(sources)} sources of {part.name!r}, planned {part.count}")
        for index, read in enumerate(sources):
            for piece in _pieces(
                _checked(read(), part, stored.steps, numbers), types[0], stored.steps
            ):
                made = _along(piece, stored.steps, types, rank, index, begin, numbers)
                if made is not None:
                    _place(out, made, write)
        last = stored.steps[-1] if stored.steps else None
        if isinstance(last, Concat):
            begin += types[-1].shape[last.axis]


def _checked(
    read: SourceTensors, part: WeightPart, steps: Sequence[Step], numbers: Numbers
) -> SourceTensors:
    """What was read, if it is what the plan says."""
    _require(read.values, part.dtype, part.shape, f"{part.name!r}", numbers)
    if part.scale is None or not wants_scales(steps):
        return SourceTensors(read.values)
    if read.scales is None:
        raise Inconsistent(f"{part.name!r} has no scales, which its steps read")
    wanted = scale_shape(part.scale, part.shape)
    _require(read.scales, part.scale.dtype, wanted, f"the scales of {part.name!r}", numbers)
    return read


def _require(
    tensor: Values, dtype: str, shape: tuple[int, ...], what: str, numbers: Numbers
) -> None:
    if (tensor.dtype, tuple(tensor.shape)) != (numbers.dtypes[dtype], shape):
        raise Inconsistent(
            f"{what} are {tensor.dtype} {list(tensor.shape)}, planned {dtype} {list(shape)}"
        )


def _pieces(read: SourceTensors, given: FormType, steps: Sequence[Step]) -> Iterator[Piece]:
    """The source, in bands of its first axis where its numbers are computed with.

    Bands hold whole blocks of scales. What is only moved is one piece; so is what a step looks at
    as a whole (padding, tiles, new scales).
    """
    values, scales = read
    zeros = (0,) * values.ndim
    whole = any(isinstance(step, Requantise | Pad | Tile) for step in steps)
    computed = any(isinstance(step, Cast | Dequantise | Reencode) for step in steps)
    if whole or not computed or prod(values.shape) <= PIECE_ELEMENTS:
        yield Piece(values, scales, zeros)
        return
    block = 1
    if given.scale is not None and values.ndim == 2:
        block = given.scale.block(given.shape)[0]
    rows = max(PIECE_ELEMENTS // max(prod(values.shape[1:]), 1) // block, 1) * block
    for first in range(0, values.shape[0], rows):
        stop = min(first + rows, values.shape[0])
        band = None if scales is None else scales[first // block : -(-stop // block)]
        yield Piece(values[first:stop], band, (first, *zeros[1:]))


def _along(
    piece: Piece,
    steps: Sequence[Step],
    types: Sequence[FormType],
    rank: Rank,
    index: int,
    begin: int,
    numbers: Numbers,
) -> Piece | None:
    now: Piece | None = piece
    for step, given in zip(steps, types, strict=False):  # `concat`, the last, has no type of one
        if now is None:
            return None
        place = begin if isinstance(step, Concat) else index
        now = take(step, now, given, rank, place, numbers)
    return now


def _place(out: Values, piece: Piece, write: Write) -> None:
    ends = zip(piece.start, piece.values.shape, strict=True)
    view = out[(*(slice(start, start + extent) for start, extent in ends), ...)]
    if view.dtype != piece.values.dtype:
        raise Inconsistent(f"its steps make {piece.values.dtype}, planned {out.dtype}")
    write(view, piece.values)
