"""Triton kernels that round rows to fp8 with a scale a block of columns. Know no target.

A program takes one row and BLOCK_GROUPS blocks of BLOCK columns; rows behind `real_rows` ([1] i32
on the device) are left alone. fp8 is written as its bits.
"""

from __future__ import annotations

import triton
import triton.language as tl

from lostwax.backends.gpu_kernels.rounding import quantised, rounded


@triton.jit
def quantise(
    x,  # [T, HEADS, WIDTH]
    values,  # [T, HEADS, WIDTH] u8
    scales,  # [T, HEADS, ceil(WIDTH / BLOCK)] f32
    real_rows,
    x_row_stride,
    x_head_stride,
    values_row_stride,
    values_head_stride,
    scales_row_stride,
    scales_head_stride,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_GROUPS: tl.constexpr,
    POWER_OF_TWO: tl.constexpr,
    FNUZ: tl.constexpr,
):
    """values = fp8(x / s), s by block."""
    row = tl.program_id(0).to(tl.int64)
    if row >= tl.load(real_rows):
        return
    BLOCKS: tl.constexpr = (WIDTH + BLOCK - 1) // BLOCK
    group = tl.program_id(1) * BLOCK_GROUPS + tl.arange(0, BLOCK_GROUPS)
    head = (group // BLOCKS).to(tl.int64)
    column = (group % BLOCKS)[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    inside = (head < HEADS)[:, None] & (column < WIDTH)
    at = row * x_row_stride + head[:, None] * x_head_stride + column
    codes, scale = quantised(
        tl.load(x + at, mask=inside, other=0.0).to(tl.float32), POWER_OF_TWO, FNUZ
    )
    at = row * values_row_stride + head[:, None] * values_head_stride + column
    tl.store(values + at, codes, mask=inside)
    at = row * scales_row_stride + head * scales_head_stride + group % BLOCKS
    tl.store(scales + at, scale, mask=head < HEADS)


@triton.jit
def silu_mul_quantise(
    gate,  # [T, WIDTH]
    up,  # [T, WIDTH]
    values,  # [T, WIDTH] u8
    scales,  # [T, ceil(WIDTH / BLOCK)] f32
    real_rows,
    gate_stride,
    up_stride,
    values_stride,
    scales_stride,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_GROUPS: tl.constexpr,
    BF16: tl.constexpr,
    POWER_OF_TWO: tl.constexpr,
    FNUZ: tl.constexpr,
):
    """values = fp8(y / s) with y = silu(gate) * up, in f32, rounded to bf16 first with BF16."""
    row = tl.program_id(0).to(tl.int64)
    if row >= tl.load(real_rows):
        return
    group = tl.program_id(1) * BLOCK_GROUPS + tl.arange(0, BLOCK_GROUPS)
    column = group[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    inside = column < WIDTH
    g = tl.load(gate + row * gate_stride + column, mask=inside, other=0.0).to(tl.float32)
    u = tl.load(up + row * up_stride + column, mask=inside, other=0.0).to(tl.float32)
    y = rounded(g / (1.0 + tl.exp(-g)) * u, BF16)
    codes, scale = quantised(y, POWER_OF_TWO, FNUZ)
    tl.store(values + row * values_stride + column, codes, mask=inside)
    tl.store(scales + row * scales_stride + group, scale, mask=group * BLOCK < WIDTH)
