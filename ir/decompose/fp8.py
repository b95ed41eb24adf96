"""fp8 as bytes, and activations rounded to fp8, in ONNX operators. Knows no op.

ONNX has no operator that sees an fp8 value's bits, and onnxruntime's `Gather` and `ScatterND`
refuse fp8: what is cached as fp8 is u8 here.
"""

from __future__ import annotations

import numpy as np

from lostwax.ir.decompose.body import Array, Body, Value, fixed
from lostwax.ir.types import TensorType

LARGEST = {"f8E4M3FN": 448.0, "f8E4M3FNUZ": 240.0, "si8": 127.0}
LEAST_AMAX = 1e-4  # of the official act_quant
FNUZ = "f8E4M3FNUZ"
SMALLEST = {"f8E4M3FN": 2.0**-9, FNUZ: 2.0**-10}
"""The least subnormal: every value is a whole multiple of it."""


def _value_of_code(encoding: str) -> Array:
    """The value of each of the 256 bytes: sign, 4 bits of exponent, 3 of mantissa. With FNUZ what
    would be minus zero is the one NaN."""
    code, least = np.arange(256), SMALLEST[encoding]
    exponent, mantissa = code // 8 % 16, code % 8
    normal = np.ldexp((8.0 + mantissa) * least, exponent - 1)
    value = np.where(exponent == 0, mantissa * least, normal)
    is_nan = code == 128 if encoding == FNUZ else code % 128 == 127
    value = np.where(is_nan, np.nan, value)
    return np.where(code < 128, value, -value)


def from_bytes(b: Body, codes: Value, encoding: str) -> Value:
    """The values of u8 `codes`, in `compute`."""
    return b.constant(_value_of_code(encoding), b.compute).gather(codes.to("i64"))


def to_bytes(b: Body, x: Value, encoding: str) -> Value:
    """The u8 codes of fp8 values. Their multiple n of the least subnormal is the code below 16;
    each doubling from there adds 8 and drops a bit.
    """
    x = x.to("f32")
    n = b("Abs", x) / SMALLEST[encoding]
    doublings = b.constant(2.0 ** np.arange(4, 18), "f32")
    shift = b("ReduceSum", (doublings <= n.at(-1)).to("f32"), b.ints(-1), keepdims=0)
    code = n / b("Pow", b.constant(2.0, "f32"), shift) + shift * 8
    if encoding == FNUZ:
        code = code + (x < 0.0).to("f32") * 128  # zero has no sign
        return b.where(b("IsNaN", x, dtype="bool"), 128.0, code).to("u8")
    code = b.where(b("IsNaN", x, dtype="bool"), 127.0, code)
    negative = b("Reciprocal", x) < 0.0  # true of -0 too
    return (code + negative.to("f32") * 128).to("u8")


def _power_of_two_above(b: Body, x: Value) -> Value:
    """2^ceil(log2 x); a logarithm that is off by an ulp at a power of two is put right."""
    power = b("Pow", b.constant(2.0, "f64"), b("Ceil", b("Log", x.to("f64")) / float(np.log(2))))
    power = b.where(power / 2 >= x.to("f64"), power / 2, power)
    return b.where(power < x.to("f64"), power * 2, power).to("f32")


def quantise(
    b: Body, x: Value, kind: TensorType, dtype: str, block: int, scale_fmt: str
) -> tuple[Value, Value]:
    """fp8 or si8 values and f32 scales, one a row and block of the last axis. All steps are in f32.

    s = max(amax, 1e-4) / largest, up to a power of two if `ue8m0`; x / s saturates.
    """
    x, width, axes = x.to("f32"), fixed(kind.sizes[-1]), len(kind.sizes)
    blocks = -(-width // block)
    pads = b.ints(*[0] * (2 * axes - 1), blocks * block - width)
    filled = b("Pad", b("Abs", x), pads, b.constant(0.0, "f32"))
    amax = b("ReduceMax", filled.reshape(*[0] * (axes - 1), blocks, block), b.ints(-1), keepdims=0)
    scales = b("Max", amax, b.constant(LEAST_AMAX, "f32")) / LARGEST[dtype]
    if scale_fmt == "ue8m0":
        scales = _power_of_two_above(b, scales)
    spread = scales.gather(b.counting(x.extent(-1)) // block, axis=-1)
    values = x / spread
    if dtype == "si8":
        values = b("Round", values)  # halves to even; with a block's amax for scale, none saturates
    return values.to(dtype), scales
