"""Conversions of f32 that round to the nearest, ties to even, interpreted as on the device.

ROUND_FIRST rounds in f32: Triton's interpreter cuts what does not fit bf16, loses carries into the
exponent of fp8 and cuts its subnormals. Knows no target.
"""

from __future__ import annotations

import triton
import triton.language as tl

from lostwax.backends.gpu_kernels.rounding import fp8_bits, fp8_wide


@triton.jit
def to_fp8(value, kind: tl.constexpr, FNUZ: tl.constexpr, ROUND_FIRST: tl.constexpr):
    """The nearest e4m3 number; of FNUZ by its bits, which have no minus zero. Interpreted, `kind`
    is f32 there."""
    if FNUZ:
        codes = fp8_bits(value, 1)
        if ROUND_FIRST:
            return fp8_wide(codes, 1).to(kind)
        else:
            return codes.to(kind, bitcast=True)
    if ROUND_FIRST:
        bits = value.to(tl.int32, bitcast=True)
        bits = (bits + 0x7FFFF + ((bits >> 20) & 1)) & ~0xFFFFF
        normal = bits.to(tl.float32, bitcast=True)
        below = (value + 1.5 * 2**14) - 1.5 * 2**14  # multiples of 2^-9
        value = tl.where(tl.abs(value) < 2**-6, below, normal)
    return value.to(kind)


@triton.jit
def to_float(value, kind: tl.constexpr, ROUND_FIRST: tl.constexpr):
    """The nearest number of `kind`, f32 or bf16."""
    if ROUND_FIRST and kind == tl.bfloat16:
        bits = value.to(tl.int32, bitcast=True)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & ~0xFFFF
        value = bits.to(tl.float32, bitcast=True)
    return value.to(kind)
