"""What each step of a weight plan does on torch, with a piece of a weight. Knows no file.

A piece says where in the whole it lies, so that a large weight is formed a piece at a time. Results
are those of `ir/reference/weight_forms.py`, in bits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from lostwax.backends.portable.kernels.fp8 import encoded, largest_of, power_of_two_above
from lostwax.backends.runtime.tensors import TORCH_DTYPES
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


@dataclass(frozen=True, slots=True)
class Piece:
    """Values from `start` (an index of each axis of the whole), with the scales of their blocks.

    A piece begins where a block begins, or the whole axis lies in one block.
    """

    values: torch.Tensor
    scales: torch.Tensor | None
    start: tuple[int, ...]


def take(step: Step, piece: Piece, given: FormType, rank: Rank, place: int) -> Piece | None:
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
            return replace(piece, values=piece.values.to(TORCH_DTYPES[dtype]))
        case Dequantise(dtype):
            values = _dequantised(piece, given).to(TORCH_DTYPES[dtype])
            return replace(piece, values=values, scales=None)
        case Requantise(dtype, scale):
            values, scales = requantise(piece.values, TORCH_DTYPES[dtype], scale)
            return replace(piece, values=values, scales=scales)
        case Reencode():
            scales = None if piece.scales is None else piece.scales.float() * 2
            return replace(piece, values=reencode(piece.values), scales=scales)
        case _:
            return _moved(step, piece, place)


def _moved(step: Stack | Transpose | Pad | Tile | Concat, piece: Piece, place: int) -> Piece:
    """After a step that changes no number."""
    match step:
        case Stack():
            return replace(piece, values=piece.values.unsqueeze(0), start=(place, *piece.start))
        case Transpose(perm):
            start = tuple(piece.start[i] for i in perm)
            return replace(piece, values=piece.values.permute(perm), start=start)
        case Pad(multiples):
            return replace(piece, values=_padded(piece.values, multiples))
        case Tile(tile):
            return _tiled(piece, tile)
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


def _shared(piece: Piece, given: FormType, axis: int, rank: Rank) -> Piece | None:
    first, stop = rank.bounds(given.shape[axis])
    begin = piece.start[axis]
    low, high = max(first, begin), min(stop, begin + piece.values.shape[axis])
    if low >= high:
        return None
    values, scales = piece.values.narrow(axis, low - begin, high - low), piece.scales
    if scales is not None:
        block = _blocks(given)[axis]
        base, top = low // block, -(-high // block)
        scales = scales.narrow(axis, base - begin // block, top - base)
    start = (*piece.start[:axis], low - first, *piece.start[axis + 1 :])
    return Piece(values, scales, start)


def spread(scales: torch.Tensor, shape: torch.Size, rows: int, cols: int) -> torch.Tensor:
    """The f32 scale of each of the values [..., N, K], one a block of `rows` x `cols`."""
    by_row = scales.float().repeat_interleave(rows, -2)[..., : shape[-2], :]
    return by_row.repeat_interleave(cols, -1)[..., : shape[-1]]


def _dequantised(piece: Piece, given: FormType) -> torch.Tensor:
    """f32 values times their scales."""
    assert piece.scales is not None  # read for plans that dequantise
    rows, cols = _blocks(given)[-2:]
    return piece.values.float().mul_(spread(piece.scales, piece.values.shape, rows, cols))


def requantise(
    values: torch.Tensor, dtype: torch.dtype, scale: ScaleLayout
) -> tuple[torch.Tensor, torch.Tensor]:
    """Values in fp8 or si8, the largest of each block at its largest, and their scales."""
    wide = values.float()
    rows, cols = scale.block(tuple(wide.shape))
    largest = largest_of(dtype)
    high, broad = wide.shape[-2:]
    zeros = (0, -broad % cols, 0, -high % rows)
    whole = torch.nn.functional.pad(wide.abs(), zeros)
    blocks = whole.reshape(*whole.shape[:-2], -(-high // rows), rows, -(-broad // cols), cols)
    scales = blocks.amax((-3, -1)).div_(largest).clamp_(min=LEAST_SCALE)
    if scale.dtype != "f32":
        scales = power_of_two_above(scales)
    elif dtype == torch.int8:
        scales = bf16_above(scales)
    made = encoded(wide / spread(scales, wide.shape, rows, cols), dtype)
    return made, scales.to(TORCH_DTYPES[scale.dtype])


def bf16_above(scale: torch.Tensor) -> torch.Tensor:
    """The least bf16 number that is not below positive f32, by the bits, as f32."""
    bits = scale.view(torch.int32) + 0xFFFF
    return (bits & ~0xFFFF).view(torch.float32)


def reencode(values: torch.Tensor) -> torch.Tensor:
    """e4m3fn as e4m3fnuz: the same bits, which mean half (scales double). -0 becomes 0, NaN NaN."""
    bits = values.view(torch.uint8)
    is_nan = (bits & 0x7F) == 0x7F
    made = bits.masked_fill(bits == 0x80, 0).masked_fill(is_nan, 0x80)
    return made.view(torch.float8_e4m3fnuz)


def _padded(values: torch.Tensor, multiples: tuple[int, ...]) -> torch.Tensor:
    """Zero bytes behind each axis; pieces that are padded are whole but for a stacked axis."""
    shape = [-(-n // m) * m for n, m in zip(values.shape, multiples, strict=True)]
    out = values.new_empty(shape)
    out.view(torch.uint8).zero_()
    out[tuple(slice(n) for n in values.shape)].copy_(values)
    return out


def _tiled(piece: Piece, tile: tuple[int, ...]) -> Piece:
    first, count = piece.values.dim() - len(tile), len(tile)
    batch, inner = piece.values.shape[:first], piece.values.shape[first:]
    cut = [n for size, t in zip(inner, tile, strict=True) for n in (size // t, t)]
    order = [first + 2 * i for i in range(count)] + [first + 2 * i + 1 for i in range(count)]
    values = piece.values.reshape(*batch, *cut).permute(*range(first), *order)
    outer = [at // t for at, t in zip(piece.start[first:], tile, strict=True)]
    return Piece(values, None, (*piece.start[:first], *outer, *(0,) * count))
