"""Rounding to bf16 and fp8 by the bits, for Triton kernels. Knows no op and no target.

By integers because they are exact everywhere: in the interpreter too, which truncates to bf16 and
loses the small numbers of fp8, and on targets that lack an encoding.
"""

from __future__ import annotations

import triton
import triton.language as tl

LEAST_AMAX = tl.constexpr(0x38D1B717)  # 1e-4 in f32, as `quant.quantise` says


@triton.jit
def rounded(x, BF16: tl.constexpr):
    """f32 x as bf16 holds it (nearest even, NaN stays), in f32; x itself without BF16."""
    if BF16:
        bits = x.to(tl.int32, bitcast=True)
        near = (bits + 0x7FFF + ((bits >> 16) & 1)) & -0x10000
        return tl.where(x == x, near.to(tl.float32, bitcast=True), x)
    else:
        return x


@triton.jit
def fp8_bits(x, FNUZ: tl.constexpr):
    """u8: the e4m3 number nearest to f32 x, ties to even, beyond the largest the largest."""
    BIAS: tl.constexpr = 8 if FNUZ else 7
    LARGEST: tl.constexpr = 0x43700000 if FNUZ else 0x43E00000  # 240 or 448
    MAGIC: tl.constexpr = (148 - BIAS) << 23  # its last bit is worth the smallest fp8 number
    bits = x.to(tl.int32, bitcast=True)
    size = tl.minimum(bits & 0x7FFFFFFF, LARGEST)
    normal = ((size + 0x7FFFF + ((size >> 20) & 1)) >> 20) - ((127 - BIAS) << 3)
    magic = tl.full((), MAGIC, tl.int32).to(tl.float32, bitcast=True)
    small = (size.to(tl.float32, bitcast=True) + magic).to(tl.int32, bitcast=True) - MAGIC
    code = tl.where(size < ((128 - BIAS) << 23), small, normal)
    sign = (bits >> 24) & 0x80
    if FNUZ:  # 0x80 is NaN there: zero has no sign
        code = tl.where(x == x, code | tl.where(code == 0, 0, sign), 0x80)
    else:
        code = tl.where(x == x, code, 0x7F) | sign
    return code.to(tl.uint8)


@triton.jit
def fp8_wide(codes, FNUZ: tl.constexpr):
    """f32: the e4m3 numbers whose bits are the u8 `codes`."""
    bits = codes.to(tl.int32)
    # exponent and mantissa as they lie in f32; the smallest are subnormal there, too
    size = ((bits & 0x7F) << 20).to(tl.float32, bitcast=True) * (2.0**119 if FNUZ else 2.0**120)
    value = tl.where(bits >= 0x80, -size, size)
    is_nan = bits == 0x80 if FNUZ else (bits & 0x7F) == 0x7F
    return tl.where(is_nan, float("nan"), value)


@triton.jit
def quantised(x, POWER_OF_TWO: tl.constexpr, FNUZ: tl.constexpr):
    """Bits of fp8 [G, B] and f32 scales [G] of f32 x [G, B], as `quant.quantise` means them.

    Magnitudes are compared as integers, for which NaN is the largest.
    """
    bits = x.to(tl.int32, bitcast=True) & 0x7FFFFFFF
    amax = tl.maximum(tl.max(bits, axis=1), LEAST_AMAX).to(tl.float32, bitcast=True)
    scale = tl.div_rn(amax, 240.0 if FNUZ else 448.0)
    if POWER_OF_TWO:
        of_scale = scale.to(tl.int32, bitcast=True)
        exponent = (of_scale >> 23) + ((of_scale & 0x7FFFFF) != 0).to(tl.int32)
        scale = (exponent << 23).to(tl.float32, bitcast=True)
        # the inverse is exact, and so the product is the quotient
        spread = x * tl.div_rn(1.0, scale)[:, None]
    else:
        spread = tl.div_rn(x, scale[:, None])
    return fp8_bits(spread, FNUZ), scale
