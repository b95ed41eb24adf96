"""The meaning of the `quant` ops in ONNX operators."""

from __future__ import annotations

from lostwax.ir.decompose import fp8
from lostwax.ir.decompose.block_scale import real
from lostwax.ir.decompose.body import Body, Value
from lostwax.ir.dialects import quant
from lostwax.ir.types import tensor


def linear(b: Body, op: quant.LinearOp) -> Value:
    """x W^T, block scales multiplied into both."""
    x = real(b, "x", tensor(op.x.type, "x"))
    return x @ real(b, "weight", tensor(op.weight.type, "weight")).transpose(1, 0)


def quantise(b: Body, op: quant.QuantiseOp) -> tuple[Value, Value]:
    """fp8 values and their scales: the encoding and the block are the result's."""
    kind = tensor(op.out.type, "out")
    assert kind.block_scale is not None  # the op's verifier
    block = kind.block_scale.cols.data
    return fp8.quantise(b, b.value("x"), kind, kind.dtype_name, block, op.scale_fmt.data)
