"""Triton kernels that write activations as fp8 with a scale a row and block. Know no target.

Two terms hold what one cannot: v / s = high + low, both fp8. With s a power of two, that is every
bf16 number down to 2^-10 of its block's largest exactly, and 2^-18 of that largest below; products
of both with fp8 weights need no conversion of the weight.
"""

from __future__ import annotations

import triton
import triton.language as tl

from lostwax.backends.gpu_kernels.conversions import to_fp8


@triton.jit
def block_scale(
    amax, TERMS: tl.constexpr, POWER_OF_TWO: tl.constexpr, FNUZ: tl.constexpr
):  # fmt: skip
    """The scale of a block whose largest magnitude is `amax`, f32, as `quant.quantise` has it.

    Of two terms the power of two, and no least magnitude but what keeps it normal.
    """
    least = 1e-4 if TERMS == 1 else 1e-30
    # to the nearest: one bit above a power of two would double what is rounded up to one
    scale = tl.div_rn(tl.maximum(amax, least), 240.0 if FNUZ else 448.0)
    if POWER_OF_TWO or TERMS == 2:
        bits = (scale.to(tl.int32, bitcast=True) + 0x7FFFFF) & 0x7F800000
        scale = bits.to(tl.float32, bitcast=True)
    return scale


@triton.jit
def store_terms(
    value, row, block, column, terms, scale, num_rows, width, scale_row, scale_block,
    BLOCK_SCALE: tl.constexpr, TERMS: tl.constexpr, POWER_OF_TWO: tl.constexpr,
    FNUZ: tl.constexpr, ROUND_FIRST: tl.constexpr,
):  # fmt: skip
    """Terms and scales of f32 [BLOCKS, BLOCK_SCALE], blocks of one row, zero behind `width`;
    arguments as `quantise_rows` has them."""
    inside = column < width
    factor = block_scale(tl.max(tl.abs(value), axis=1), TERMS, POWER_OF_TWO, FNUZ)
    there = scale + row.to(tl.int64) * scale_row + block.to(tl.int64) * scale_block
    tl.store(there, factor, mask=block * BLOCK_SCALE < width)
    value = tl.div_rn(value, factor[:, None] + tl.zeros_like(value))
    high = to_fp8(value, terms.dtype.element_ty, FNUZ, ROUND_FIRST)
    target = terms + row.to(tl.int64) * width + column
    tl.store(target, high, mask=inside)
    if TERMS == 2:
        low = to_fp8(value - high.to(tl.float32), terms.dtype.element_ty, FNUZ, ROUND_FIRST)
        tl.store(target + tl.cast(num_rows, tl.int64) * width, low, mask=inside)


@triton.jit
def quantise_blocks(
    row, first_block, x, terms, scale, num_rows, width, x_stride, scale_row, scale_block,
    BLOCK_SCALE: tl.constexpr, BLOCKS: tl.constexpr, TERMS: tl.constexpr,
    POWER_OF_TWO: tl.constexpr, FNUZ: tl.constexpr, ROUND_FIRST: tl.constexpr,
):  # fmt: skip
    """BLOCKS blocks of one row from `first_block` on; arguments as `quantise_rows` has them."""
    block = first_block + tl.arange(0, BLOCKS)
    column = block[:, None] * BLOCK_SCALE + tl.arange(0, BLOCK_SCALE)[None, :]
    source = x + row.to(tl.int64) * x_stride + column
    value = tl.load(source, mask=column < width, other=0.0).to(tl.float32)
    store_terms(
        value, row, block, column, terms, scale, num_rows, width, scale_row, scale_block,
        BLOCK_SCALE, TERMS, POWER_OF_TWO, FNUZ, ROUND_FIRST,
    )  # fmt: skip


@triton.jit
def two_terms(x, kind: tl.constexpr, FNUZ: tl.constexpr, ROUND_FIRST: tl.constexpr):
    """Both terms and the scales [G] of f32 x [G, B], a block a row."""
    scale = block_scale(tl.max(tl.abs(x), axis=1), 2, 1, FNUZ)
    spread = tl.div_rn(x, scale[:, None] + tl.zeros_like(x))
    high = to_fp8(spread, kind, FNUZ, ROUND_FIRST)
    return high, to_fp8(spread - high.to(tl.float32), kind, FNUZ, ROUND_FIRST), scale


@triton.jit
def quantise_rows(
    x,  # [T, WIDTH]
    terms,  # [TERMS, T, WIDTH] fp8
    scale,  # f32, a row and block
    real_rows,  # [1] i32: rows behind it are left alone
    num_rows,
    width,
    x_stride,
    scale_row,
    scale_block,
    BLOCK_SCALE: tl.constexpr,
    BLOCKS: tl.constexpr,
    TERMS: tl.constexpr,
    POWER_OF_TWO: tl.constexpr,
    FNUZ: tl.constexpr,
    ROUND_FIRST: tl.constexpr,
):
    """BLOCKS blocks of one row."""
    row = tl.program_id(0)
    if row >= tl.load(real_rows):
        return
    quantise_blocks(
        row, tl.program_id(1) * BLOCKS, x, terms, scale, num_rows, width, x_stride, scale_row,
        scale_block, BLOCK_SCALE, BLOCKS, TERMS, POWER_OF_TWO, FNUZ, ROUND_FIRST,
    )  # fmt: skip
