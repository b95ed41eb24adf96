"""The meaning of the `quant` ops in numpy, fp64 inside."""

from __future__ import annotations

from lostwax.ir.reference.dtype import Array, Real, Value, widen


def linear(x: Array, weight: Value) -> Real:
    """y[t, n] = sum_k x[t, k] W[n, k], block scales multiplied into W."""
    return widen(x) @ widen(weight).T
