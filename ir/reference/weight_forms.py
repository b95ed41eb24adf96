"""The numpy meaning of each step of a weight plan. Knows no file and no device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lostwax.ir.contract.ranks import ALONE, Rank
from lostwax.ir.contract.scale_layout import ScaleLayout
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
    StoredWeight,
    Tile,
    Transpose,
)
from lostwax.ir.reference.dtype import (
    LARGEST,
    NUMPY_DTYPES,
    Array,
    Scaled,
    Value,
    round_to,
    widen,
)
from lostwax.ir.reference.quant import power_of_two_above

LEAST_SCALE = np.float32(2.0**-126)  # the least normal number: a block of zeros has a scale, too


def select(value: Scaled, of: str) -> Array:
    """The values or the scales alone."""
    return value.values if of == "values" else value.scales


def split(value: Value, axis: int, rank: Rank) -> Value:
    """The rank's share of an axis (from the last one as -1), with the blocks that it lies in."""
    start, stop = rank.bounds(value.shape[axis])
    if not isinstance(value, Scaled):
        return np.take(value, range(start, stop), axis)
    block = {-1: value.cols, -2: value.rows}.get(axis, 1)
    first, last = rank.bounds(value.shape[axis], block)
    return Scaled(
        np.take(value.values, range(start, stop), axis),
        np.take(value.scales, range(first, last), axis),
        value.rows,
        value.cols,
    )


def dequantise(value: Scaled, dtype: str) -> Array:
    """Products in f32, rounded from there to `dtype`."""
    return round_to(round_to(widen(value), "f32"), dtype)


def requantise(value: Array, dtype: str, scale: ScaleLayout) -> Scaled:
    """The largest of each block at the dtype's largest; scales of exponents are rounded up."""
    wide = value.astype(np.float32)
    *batch, num_rows, num_cols = wide.shape
    rows, cols = scale.block(wide.shape)
    scales = np.empty((*batch, -(-num_rows // rows), -(-num_cols // cols)), np.float32)
    largest = np.float32(LARGEST[dtype])
    for i in range(scales.shape[-2]):
        for j in range(scales.shape[-1]):
            block = wide[..., i * rows : (i + 1) * rows, j * cols : (j + 1) * cols]
            amax = np.abs(block).max(axis=(-2, -1), initial=0)
            scales[..., i, j] = np.maximum(amax / largest, LEAST_SCALE)
    if scale.dtype != "f32":
        scales = power_of_two_above(scales)
    elif dtype == "si8":
        scales = bf16_above(scales)
    spread = np.repeat(np.repeat(scales, rows, -2)[..., :num_rows, :], cols, -1)[..., :num_cols]
    return Scaled(round_to(wide / spread, dtype), round_to(scales, scale.dtype), rows, cols)


def bf16_above(scales: Array) -> Array:
    """The least bf16 number that is not below each positive f32, as f32."""
    near = scales.astype(NUMPY_DTYPES["bf16"])
    above = (near.view(np.uint16) + np.uint16(1)).view(near.dtype)  # the next, if positive
    return np.where(near.astype(np.float32) < scales, above, near).astype(np.float32)


def reencode(value: Value) -> Scaled:
    """Scaled e4m3fn as e4m3fnuz with the same products: a code means half there, scales double.

    Minus zero, which e4m3fnuz reads as NaN, becomes zero; NaN becomes that code.
    """
    fn, fnuz = NUMPY_DTYPES["f8E4M3FN"], NUMPY_DTYPES["f8E4M3FNUZ"]
    if not isinstance(value, Scaled) or value.values.dtype != fn:
        raise ValueError("a `reencode` step needs scaled e4m3fn values")
    bits = np.ascontiguousarray(value.values).view(np.uint8)
    is_nan = (bits & 0x7F) == 0x7F
    made = np.where(is_nan, 0x80, np.where(bits == 0x80, 0, bits)).astype(np.uint8)
    doubled = value.scales.astype(np.float32) * np.float32(2)
    return Scaled(made.view(fnuz), doubled, value.rows, value.cols)


def pad(value: Array, multiples: Sequence[int]) -> Array:
    """Zeros behind each axis, up to the next multiple."""
    widths = [(0, -n % m) for n, m in zip(value.shape, multiples, strict=True)]
    return np.pad(value.view(_bits(value)), widths).view(value.dtype)


def _bits(value: Array) -> np.dtype[Any]:
    """An integer as wide as the element: zero of every dtype but exponents is all zeros."""
    return np.dtype(f"u{value.dtype.itemsize}")


def tile(value: Array, tiles: Sequence[int]) -> Array:
    """[..., N, K] by (n, k) as [..., N/n, K/k, n, k]."""
    batch = value.shape[: value.ndim - len(tiles)]
    cut = [
        n for size, t in zip(value.shape[len(batch) :], tiles, strict=True) for n in (size // t, t)
    ]
    first, count = len(batch), len(tiles)
    outer = [first + 2 * i for i in range(count)]
    inner = [first + 2 * i + 1 for i in range(count)]
    return value.reshape(*batch, *cut).transpose(*range(first), *outer, *inner)


def _plain(value: Value, step: Step) -> Array:
    if isinstance(value, Scaled):
        raise ValueError(f"a `{type(step).__name__.lower()}` step would drop scales; select first")
    return value


def _scaled(value: Value, step: Step) -> Scaled:
    if not isinstance(value, Scaled):
        raise ValueError(f"a `{type(step).__name__.lower()}` step needs scaled values")
    return value


def _after(value: Value, step: Step, rank: Rank) -> Value:
    match step:
        case Select(of):
            return select(_scaled(value, step), of)
        case Split(axis):
            return split(value, axis, rank)
        case Cast(dtype):
            return round_to(_plain(value, step), dtype)
        case Dequantise(dtype):
            return dequantise(_scaled(value, step), dtype)
        case Requantise(dtype, scale):
            return requantise(_plain(value, step), dtype, scale)
        case Reencode():
            return reencode(value)
        case Stack() | Concat():  # over several, in `apply_steps`
            raise AssertionError(step)
        case _:
            return _moved(_plain(value, step), step)


def _moved(value: Array, step: Transpose | Pad | Tile) -> Array:
    match step:
        case Transpose(perm):
            return np.transpose(value, perm)
        case Pad(multiples):
            return pad(value, multiples)
        case Tile(tiles):
            return tile(value, tiles)


def apply_steps(
    parts: Sequence[Sequence[Value]], steps: Sequence[Step], rank: Rank = ALONE
) -> Value:
    """The stored tensor, of each part's sources: each step is taken with all that is there.

    `stack` makes one of a part's sources, `concat` one of the parts.
    """
    now: list[list[Value]] = [list(p) for p in parts]
    for step in steps:
        match step:
            case Stack():
                now = [[np.stack([_plain(v, step) for v in p])] for p in now]
            case Concat(axis):
                now = [[np.concatenate([_plain(v, step) for p in now for v in p], axis)]]
            case _:
                now = [[_after(v, step, rank) for v in p] for p in now]
    if len(now) != 1 or len(now[0]) != 1:
        raise ValueError(
            f"{sum(map(len, now))} tensors are left after the steps; add a stack or concat step"
        )
    return now[0][0]


def stored_weight(
    stored: StoredWeight, parts: Sequence[Sequence[Value]], rank: Rank = ALONE
) -> Array:
    """What one planned tensor holds, from its parts' checkpoint tensors in storage order."""
    value = apply_steps(parts, stored.steps, rank)
    if isinstance(value, Scaled):
        raise ValueError(f"{stored.name} has values and scales together; select one")
    made = (value.shape, value.dtype)
    if made != (stored.shape, NUMPY_DTYPES[stored.dtype]):
        raise ValueError(
            f"{stored.name} came out as {value.dtype} {value.shape}, planned as {stored.dtype}"
            f" {stored.shape}"
        )
    return np.ascontiguousarray(value)
