"""The meaning of the `core` ops in numpy, fp64 inside. The caller rounds to the result's dtype."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lostwax.ir.reference.dtype import Array, Real, Value, widen
from lostwax.ir.reference.yarn import inverse_frequencies


def add(a: Array, b: Array) -> Real:
    """a + b."""
    return widen(a) + widen(b)


def cast(x: Array) -> Array:
    """The value itself: the result's type says how it is rounded."""
    return widen(x)


def zeros_like(x: Array) -> Array:
    """Zeros in the operand's shape."""
    return np.zeros_like(widen(x))


def rms_norm(x: Array, weight: Array, *, eps: float) -> Real:
    """weight * x / sqrt(mean(x^2) + eps) over the last axis."""
    x = widen(x)
    return widen(weight) * (x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps))


def layer_norm(x: Array, weight: Array, bias: Array, *, eps: float) -> Real:
    """weight * (x - mean) / sqrt(var + eps) + bias over the last axis, var biased."""
    centred = widen(x) - np.mean(widen(x), axis=-1, keepdims=True)
    var = np.mean(centred * centred, axis=-1, keepdims=True)
    return widen(weight) * (centred / np.sqrt(var + eps)) + widen(bias)


def sigmoid(x: Real) -> Real:
    """1 / (1 + e^-x), without overflow."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, e) / (1 + e)


def silu(x: Real) -> Real:
    """x * sigmoid(x)."""
    return x * sigmoid(x)


def silu_mul(gate: Array, up: Array) -> Real:
    """silu(gate) * up."""
    return silu(widen(gate)) * widen(up)


def rope(
    x: Array,
    positions: Array,
    *,
    offset: int,
    dim: int,
    interleaved: bool,
    theta: float,
    factor: float,
    original_len: int,
    beta_fast: float,
    beta_slow: float,
    magnitude: float,
) -> Real:
    """Rotate pair i of the `dim` elements from `offset` by positions * frequency_i.

    x: [T, D] or [T, H, D]. Pairs are (x0,x1),(x2,x3)... if interleaved, else (x_i, x_{i+dim/2}).
    """
    frequency = inverse_frequencies(
        dim,
        theta=theta,
        factor=factor,
        original_len=original_len,
        beta_fast=beta_fast,
        beta_slow=beta_slow,
    )
    angle = widen(positions)[:, None] * frequency  # [T, dim/2]
    if x.ndim == 3:
        angle = angle[:, None, :]
    cos, sin = np.cos(angle) * magnitude, np.sin(angle) * magnitude
    pair = np.arange(dim // 2)
    first = offset + (2 * pair if interleaved else pair)
    second = offset + (2 * pair + 1 if interleaved else pair + dim // 2)
    out = widen(x).copy()
    a, b = out[..., first], out[..., second]
    out[..., first], out[..., second] = a * cos - b * sin, b * cos + a * sin
    return out


def reshape(x: Array, *, shape: tuple[int, ...]) -> Array:
    """The same elements in row-major order."""
    return widen(x).reshape(shape)


def slice_(x: Array, *, axis: int, start: int, stop: int) -> Array:
    """Elements start..stop-1 of one axis."""
    return np.take(widen(x), np.arange(start, stop), axis=axis)


def concat(parts: Sequence[Array]) -> Real:
    """The parts side by side along the last axis."""
    return np.concatenate([widen(p) for p in parts], axis=-1)


def embed(tokens: Array, table: Value) -> Real:
    """Rows of `table`; token -1 gives zeros."""
    return gather_rows(widen(table), tokens)


def gather_rows(x: Array, rows: Array) -> Real:
    """Rows of x; row -1 gives zeros."""
    chosen = x[np.maximum(rows, 0)]
    present = (rows >= 0).reshape(-1, *[1] * (x.ndim - 1))
    return np.where(present, widen(chosen), 0.0)
