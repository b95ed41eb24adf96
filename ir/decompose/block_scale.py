"""Block scales multiplied into the values, in ONNX operators. Knows no op."""

from __future__ import annotations

from lostwax.ir.decompose.body import Body, Value
from lostwax.ir.types import TensorType


def dequantise(b: Body, values: Value, scales: Value, kind: TensorType) -> Value:
    """values [..., N, K] times scales [..., ceil(N/rows), ceil(K/cols)], in `compute`.

    The last block of an axis may be partial, so the scales are spread by index, not repeated.
    """
    blocks = kind.block_scale
    assert blocks is not None  # the caller asks only for scaled weights
    wide = scales.to(b.compute)
    for axis, extent in ((-2, blocks.rows.data), (-1, blocks.cols.data)):
        wide = wide.gather(b.counting(values.extent(axis)) // extent, axis)
    return values.to(b.compute) * wide


def real(b: Body, name: str, kind: TensorType) -> Value:
    """An operand in `compute`, scales multiplied in where it has them."""
    if kind.block_scale is None:
        return b.real(name)
    return dequantise(b, b.value(name), b.value(f"{name}_scale"), kind)
