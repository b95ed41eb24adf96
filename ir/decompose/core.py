"""The meaning of the `core` ops in ONNX operators."""

from __future__ import annotations

from lostwax.ir.decompose.body import Body, Value
from lostwax.ir.decompose.yarn import frequencies
from lostwax.ir.dialects import core
from lostwax.ir.types import TensorType


def add(b: Body, op: core.AddOp) -> Value:
    """a + b."""
    return b.real("a") + b.real("b")


def cast(b: Body, op: core.CastOp) -> Value:
    """The value itself, rounded by its result's type."""
    return b.value("x")


def zeros_like(b: Body, op: core.ZerosLikeOp) -> Value:
    """Zeros of the operand's shape."""
    return b("Expand", b.constant(0, b.compute), b("Shape", b.value("x"), dtype="i64"))


def _mean(b: Body, x: Value) -> Value:
    return b("ReduceMean", x, b.ints(-1), keepdims=1)


def rms_norm(b: Body, op: core.RmsNormOp) -> Value:
    """weight * x / sqrt(mean(x^2) + eps)."""
    x = b.real("x")
    return x / b("Sqrt", _mean(b, x * x) + b.attribute("eps")) * b.real("weight")


def layer_norm(b: Body, op: core.LayerNormOp) -> Value:
    """weight * (x - mean) / sqrt(var + eps) + bias."""
    x = b.real("x")
    centred = x - _mean(b, x)
    scaled = centred / b("Sqrt", _mean(b, centred * centred) + b.attribute("eps"))
    return scaled * b.real("weight") + b.real("bias")


def silu(b: Body, x: Value) -> Value:
    """x * sigmoid(x)."""
    return x * b("Sigmoid", x)


def silu_mul(b: Body, op: core.SiluMulOp) -> Value:
    """silu(gate) * up."""
    return silu(b, b.real("gate")) * b.real("up")


def rope(b: Body, op: core.RopeOp) -> Value:
    """x * cos + partner * (-sin or sin) column by column; columns outside keep cos 1, sin 0.

    The partner of a pair's first element is its second, and the reverse.
    """
    x = b.real("x")
    column = b.counting(x.extent(-1))
    dim, interleaved = b.attribute("dim"), b.attribute("interleaved").equals(1)
    place = column - b.attribute("offset")
    inside = (place >= 0) & (place < dim)
    place = b.where(inside, place, 0)
    half = dim // 2
    pair = b.where(interleaved, place // 2, place % half)
    second = b.where(interleaved, place % 2, place // half)
    away = b.where(interleaved, b.constant(1, "i64"), half)
    partner = b.where(inside, column + away * (b.constant(1, "i64") - second * 2), column)
    angle = b.index("positions").to("f64").at(1) * frequencies(b, pair)
    magnitude = b.attribute("magnitude", "f64")
    sign = (second * 2 - 1).to("f64")
    cos = b.where(inside, b("Cos", angle) * magnitude, 1.0).to(b.compute)
    sin = b.where(inside, b("Sin", angle) * magnitude * sign, 0.0).to(b.compute)
    assert isinstance(op.x.type, TensorType)
    if len(op.x.type.sizes) == 3:  # the same rotation for every head
        cos, sin = cos.at(1), sin.at(1)
    return x * cos + x.gather(partner, axis=-1) * sin


def reshape(b: Body, op: core.ReshapeOp) -> Value:
    """The same elements in the shape of the attribute `shape`."""
    return b("Reshape", b.value("x"), b.attribute("shape"))


def slice_(b: Body, op: core.SliceOp) -> Value:
    """Elements start..stop-1 of one axis."""
    bounds = [b.attribute(name).at(0) for name in ("start", "stop", "axis")]
    return b("Slice", b.value("x"), *bounds)


def concat(b: Body, op: core.ConcatOp) -> Value:
    """The parts side by side."""
    return b("Concat", *(b.value(f"parts_{i}") for i in range(len(op.parts))), axis=-1)


def rows_or_zeros(b: Body, table: Value, rows: Value) -> Value:
    """Rows of `table` by index; a negative index gives zeros."""
    chosen = table.gather(b("Max", rows, b.constant(0, "i64"))).to(b.compute)
    return b.where((rows >= 0).at(1), chosen, 0.0)


def embed(b: Body, op: core.EmbedOp) -> Value:
    """Rows of `table`; token -1 gives zeros."""
    return rows_or_zeros(b, b.value("table"), b.index("tokens"))


def gather_rows(b: Body, op: core.GatherRowsOp) -> Value:
    """Rows of x; row -1 gives zeros."""
    return rows_or_zeros(b, b.value("x"), b.index("rows"))
