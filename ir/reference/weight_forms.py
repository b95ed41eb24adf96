"""The numpy meaning of each step of a weight form. Knows no file and no device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lostwax.ir.contract.ranks import ALONE, Rank
from lostwax.ir.contract.weights import Step, StoredWeight
from lostwax.ir.reference.dtype import NUMPY_DTYPES, Array, Scaled, Value, round_to, widen


def dequantise(value: Value, dtype: str) -> Array:
    """Block scales multiplied in, rounded once to `dtype`."""
    return round_to(widen(value), dtype)


def cast(value: Value, dtype: str) -> Array:
    """Rounded to `dtype`; scaled values must be dequantised instead."""
    if isinstance(value, Scaled):
        raise ValueError("a `cast` step would drop block scales; use `dequantise`")
    return round_to(value, dtype)


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
    return Scaled(made.view(fnuz), value.scales * 2, value.rows, value.cols)


def stack(values: Sequence[Value]) -> Value:
    """A new axis 0 over equal shapes, scales stacked beside their values."""
    scaled = [v for v in values if isinstance(v, Scaled)]
    if not scaled:
        return np.stack([v for v in values if not isinstance(v, Scaled)])
    _require_all_scaled(values, scaled, "stack")
    return Scaled(
        np.stack([v.values for v in scaled]),
        np.stack([v.scales for v in scaled]),
        scaled[0].rows,
        scaled[0].cols,
    )


def concat(values: Sequence[Value], axis: int) -> Value:
    """Behind one another along `axis`; all scaled parts but the last must fill their blocks."""
    scaled = [v for v in values if isinstance(v, Scaled)]
    if not scaled:
        return np.concatenate([v for v in values if not isinstance(v, Scaled)], axis=axis)
    _require_all_scaled(values, scaled, "concat")
    ndim = scaled[0].values.ndim
    axis %= ndim
    block = {ndim - 2: scaled[0].rows, ndim - 1: scaled[0].cols}.get(axis, 1)
    for part in scaled[:-1]:
        if part.shape[axis] % block:
            raise ValueError(
                f"a `concat` of scaled weights along axis {axis} needs every part but the last to "
                f"be a multiple of {block}, got {part.shape[axis]}; dequantise first"
            )
    return Scaled(
        np.concatenate([v.values for v in scaled], axis=axis),
        np.concatenate([v.scales for v in scaled], axis=axis),
        scaled[0].rows,
        scaled[0].cols,
    )


def transpose(value: Value, perm: tuple[int, ...]) -> Value:
    """Axes permuted; scales follow, so the two block axes must stay the last two."""
    if not isinstance(value, Scaled):
        return np.ascontiguousarray(np.transpose(value, perm))
    ndim = value.values.ndim
    if {ndim - 1, ndim - 2} != set(perm[-2:]):
        raise ValueError(f"a `transpose` by {perm} moves the block axes of a scaled weight apart")
    swapped = perm[-1] != ndim - 1
    rows, cols = (value.cols, value.rows) if swapped else (value.rows, value.cols)
    return Scaled(
        np.ascontiguousarray(np.transpose(value.values, perm)),
        np.ascontiguousarray(np.transpose(value.scales, perm)),
        rows,
        cols,
    )


def _require_all_scaled(values: Sequence[Value], scaled: Sequence[Scaled], kind: str) -> None:
    blocks = {(v.rows, v.cols) for v in scaled}
    if len(scaled) != len(values) or len(blocks) != 1:
        raise ValueError(f"a `{kind}` needs parts that are all scaled alike; dequantise first")


def apply_steps(parts: Sequence[Sequence[Value]], steps: Sequence[Step]) -> Value:
    """The stored tensor: steps in order over each part's sources, `concat` over the parts.

    `dequantise`, `reencode`, `cast` and `transpose` act on every source, `stack` makes one of a
    part's sources.
    """
    now: list[list[Value]] = [list(p) for p in parts]
    for step in steps:
        match step.kind:
            case "dequantise":
                now = [[dequantise(v, step.dtype) for v in p] for p in now]
            case "reencode":
                now = [[reencode(v) for v in p] for p in now]
            case "cast":
                now = [[cast(v, step.dtype) for v in p] for p in now]
            case "transpose":
                now = [[transpose(v, step.perm) for v in p] for p in now]
            case "stack":
                now = [[stack(p)] for p in now]
            case "concat":
                now = [[concat([v for p in now for v in p], step.axis)]]
    if len(now) != 1 or len(now[0]) != 1:
        raise ValueError(
            f"{sum(map(len, now))} tensors are left after the steps; add a stack or concat step"
        )
    return now[0][0]


def _source(value: Value, stored: StoredWeight) -> Array:
    if isinstance(value, Scaled):
        is_fn = value.values.dtype == NUMPY_DTYPES["f8E4M3FN"]
        if is_fn and any(s.kind == "reencode" for s in stored.steps):
            value = reencode(value)
        if stored.scale:
            return round_to(value.scales, stored.dtype)
        if value.values.dtype == NUMPY_DTYPES[stored.dtype]:
            return value.values
        return dequantise(value, stored.dtype)
    return cast(value, stored.dtype)


def _slice(value: Value, stored: StoredWeight, axis: int, rank: Rank) -> Array:
    """The rank's slice of a part's source: of its values, or of the blocks that they lie in."""
    made = _source(value, stored)
    block = 1
    if stored.scale:
        assert isinstance(value, Scaled)
        block = {-1: value.cols, -2: value.rows}[axis]
    start, stop = rank.bounds(value.shape[axis], block)
    return np.take(made, range(start, stop), axis)


def stored_weight(
    stored: StoredWeight, parts: Sequence[Sequence[Value]], rank: Rank = ALONE
) -> Array:
    """What one planned tensor holds, from its parts' checkpoint tensors in storage order.

    Values are dequantised and cast where the checkpoint stores them otherwise; the rank's slice is
    taken where ranks split the part; several sources of a part are stacked; then the plan's own
    steps apply.
    """
    made: list[Sequence[Value]] = []
    for sources, axis in zip(parts, stored.splits or (None,) * len(parts), strict=True):
        each: list[Value] = [
            _source(v, stored) if axis is None else _slice(v, stored, axis, rank) for v in sources
        ]
        made.append(each if len(each) == 1 else [stack(each)])
    over_parts = [s for s in stored.steps if s.kind != "reencode"]  # done with the sources
    value = apply_steps(made, over_parts)
    assert not isinstance(value, Scaled)  # _source gives plain arrays only
    if value.shape != stored.shape:
        raise ValueError(f"{stored.name} came out as {value.shape}, planned as {stored.shape}")
    return value
