"""YaRN's rotation frequencies (arXiv:2309.00071, section 3.2) in ONNX operators, in f64."""

from __future__ import annotations

from math import pi

from lostwax.ir.decompose.body import Body, Value


def _turning_pair(b: Body, dim: Value, turns: Value) -> Value:
    """The pair that turns `turns` times over the original context."""
    length, theta = b.attribute("original_len", "f64"), b.attribute("theta", "f64")
    return dim * b("Log", length / (turns * (2 * pi))) / (b("Log", theta) * 2)


def frequencies(b: Body, pair: Value) -> Value:
    """Radians a position of each `pair` (i64, any shape): fast pairs keep theirs, slow ones are
    divided by `factor`, a linear ramp lies between. Plain RoPE where factor is 1.
    """
    dim, factor = b.attribute("dim", "f64"), b.attribute("factor", "f64")
    theta, pair = b.attribute("theta", "f64"), pair.to("f64")
    plain = b("Pow", theta, b("Neg", pair * 2 / dim))
    first = b("Floor", _turning_pair(b, dim, b.attribute("beta_fast", "f64")))
    last = b("Ceil", _turning_pair(b, dim, b.attribute("beta_slow", "f64")))
    first = b("Max", first, b.constant(0.0, "f64"))
    last = b("Min", last, dim - 1.0)
    width = b("Max", last - first, b.constant(1e-3, "f64"))
    ramp = b("Clip", (pair - first) / width, b.constant(0.0, "f64"), b.constant(1.0, "f64"))
    slow = plain / factor
    return b.where(factor.equals(1.0), plain, plain + ramp * (slow - plain))
