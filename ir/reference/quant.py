"""The meaning of the `quant` ops in numpy, fp64 inside but where a rounding is the meaning."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lostwax.ir.reference.dtype import (
    LARGEST,
    Array,
    Real,
    Scaled,
    Value,
    round_to,
    some_rows,
    widen,
)

WIDENED_ROWS = 128
"""Of a weight: few enough that their fp64 values stay in a core's cache."""
LEAST_AMAX = 1e-4  # official act_quant: keeps the scale of a block of zeros above 0


def linear(x: Value, weight: Value) -> Real:
    """y[t, n] = sum_k x[t, k] W[n, k], block scales multiplied into both."""
    return product(widen(x), weight)


def product(x: Real, weight: Value) -> Real:
    """x W^T. W is widened some rows at a time: fresh memory takes longer than the sums."""
    rows = weight.shape[0]
    whole = weight.rows if isinstance(weight, Scaled) else 1
    step = whole * -(-WIDENED_ROWS // whole)
    out = np.empty((x.shape[0], rows))
    for i in range(0, rows, step):
        out[:, i : i + step] = x @ widen(some_rows(weight, i, i + step)).T
    return out


def power_of_two_above(scale: NDArray[np.float32]) -> NDArray[np.float32]:
    """2^ceil(log2(scale)) by the bits: the exponent, one higher unless the mantissa is zero."""
    bits = scale.view(np.int32)
    exponent = (bits >> 23) + ((bits & 0x7FFFFF) != 0)
    return (exponent << 23).astype(np.int32).view(np.float32)


def quantise(x: Array, *, scale_fmt: str, dtype: str, block: int) -> Scaled:
    """fp8(x / s) with one scale a row and `block` of the last axis; the steps are in f32.

    s = max(amax, 1e-4) / largest; with `ue8m0` the next power of two from there.
    """
    wide = widen(x).astype(np.float32)
    width, largest = wide.shape[-1], np.float32(LARGEST[dtype])
    blocks = [np.abs(wide[..., i : i + block]).max(axis=-1) for i in range(0, width, block)]
    amax = np.maximum(np.stack(blocks, axis=-1), np.float32(LEAST_AMAX))
    scales = (amax / largest).astype(np.float32)  # f32 already: for the type checker
    if scale_fmt == "ue8m0":
        scales = power_of_two_above(scales)
    spread = np.repeat(scales, block, axis=-1)[..., :width]
    return Scaled(round_to(wide / spread, dtype), scales, 1, block)
