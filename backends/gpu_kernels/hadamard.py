"""Triton kernels of the Hadamard rotation, alone and with what stands around it. Know no target."""

from __future__ import annotations

import triton
import triton.language as tl

from lostwax.backends.gpu_kernels.rope import partner_of, turned
from lostwax.backends.gpu_kernels.rounding import quantised, rounded


@triton.jit
def _butterfly(x, ROWS: tl.constexpr, WIDTH: tl.constexpr, STRIDE: tl.constexpr):
    """Sums and differences of the columns of f32 x that lie STRIDE apart."""
    pairs = tl.reshape(x, (ROWS, WIDTH // (2 * STRIDE), 2, STRIDE))
    is_second = (tl.arange(0, 2) == 1)[None, None, :, None]
    plus = tl.sum(pairs, axis=2, keep_dims=True)
    minus = tl.sum(tl.where(is_second, -pairs, pairs), axis=2, keep_dims=True)
    return tl.reshape(tl.where(is_second, minus, plus), (ROWS, WIDTH))


@triton.jit
def rotated(x, scale, ROWS: tl.constexpr, WIDTH: tl.constexpr, LEVELS: tl.constexpr):
    """x H times scale of f32 x [ROWS, WIDTH]: H of +-1 in Sylvester's order, WIDTH = 2^LEVELS."""
    for level in tl.static_range(LEVELS):
        x = _butterfly(x, ROWS, WIDTH, 1 << level)
    return x * scale


@triton.jit
def hadamard(
    x,  # [T, HEADS, WIDTH]
    out,  # [T, HEADS, WIDTH]
    real_rows,  # [1] i32: rows behind it are left alone
    x_row_stride,
    x_head_stride,
    out_row_stride,
    out_head_stride,
    scale,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    LEVELS: tl.constexpr,
    BLOCK_HEADS: tl.constexpr,
    BF16: tl.constexpr,
):
    """out = x H * scale of one row and block of heads, in f32, rounded once."""
    row = tl.program_id(0).to(tl.int64)
    if row >= tl.load(real_rows):
        return
    head = (tl.program_id(1) * BLOCK_HEADS + tl.arange(0, BLOCK_HEADS)).to(tl.int64)[:, None]
    column = tl.arange(0, WIDTH)[None, :]
    inside = (head < HEADS) & (column < WIDTH)
    at = row * x_row_stride + head * x_head_stride + column
    value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    y = rounded(rotated(value, scale, BLOCK_HEADS, WIDTH, LEVELS), BF16)
    at = row * out_row_stride + head * out_head_stride + column
    tl.store(out + at, y.to(out.dtype.element_ty), mask=inside)


@triton.jit
def store_rotated(
    y, row, head, column, values, scales, values_row_stride, values_head_stride, scales_row_stride,
    scales_head_stride, scale, HEADS: tl.constexpr, BLOCK_HEADS: tl.constexpr, WIDTH: tl.constexpr,
    LEVELS: tl.constexpr, BLOCK: tl.constexpr, BF16: tl.constexpr, POWER_OF_TWO: tl.constexpr,
    FNUZ: tl.constexpr,
):  # fmt: skip
    """values = fp8(z / s), scales = s with z = y H * scale of f32 y [BLOCK_HEADS, WIDTH], rounded
    to bf16 with BF16: heads [BLOCK_HEADS] of one row."""
    z = rounded(rotated(y, scale, BLOCK_HEADS, WIDTH, LEVELS), BF16)
    BLOCKS: tl.constexpr = WIDTH // BLOCK
    codes, scale_of = quantised(tl.reshape(z, (BLOCK_HEADS * BLOCKS, BLOCK)), POWER_OF_TWO, FNUZ)
    inside = (head < HEADS)[:, None]
    wide_row = row.to(tl.int64)
    wide_head = head[:, None].to(tl.int64)
    at = wide_row * values_row_stride + wide_head * values_head_stride + column
    tl.store(values + at, tl.reshape(codes, (BLOCK_HEADS, WIDTH)), mask=inside & (column < WIDTH))
    block = tl.arange(0, BLOCKS)[None, :]
    at = wide_row * scales_row_stride + wide_head * scales_head_stride + block
    tl.store(scales + at, tl.reshape(scale_of, (BLOCK_HEADS, BLOCKS)), mask=inside)


@triton.jit
def rope_hadamard_quantise(
    x,  # [T, HEADS, WIDTH]
    table,  # [2, T, DIM] f32: cosines, signed sines
    values,  # [T, HEADS, WIDTH] u8: bits of fp8
    scales,  # [T, HEADS, WIDTH / BLOCK] f32
    real_rows,  # [1] i32: rows behind it are left alone
    num_rows,
    x_row_stride,
    x_head_stride,
    values_row_stride,
    values_head_stride,
    scales_row_stride,
    scales_head_stride,
    scale,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    LEVELS: tl.constexpr,
    OFFSET: tl.constexpr,
    DIM: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_HEADS: tl.constexpr,
    BF16: tl.constexpr,
    POWER_OF_TWO: tl.constexpr,
    FNUZ: tl.constexpr,
):
    """values = fp8(z / s) with z = rope(x) H * scale; both are rounded to bf16 with BF16."""
    row = tl.program_id(0).to(tl.int64)
    if row >= tl.load(real_rows):
        return
    head = (tl.program_id(1) * BLOCK_HEADS + tl.arange(0, BLOCK_HEADS)).to(tl.int64)
    # whole, so that the table is loaded in the layout of x, whose rows then lie in one warp
    column = tl.broadcast_to(tl.arange(0, WIDTH)[None, :], (BLOCK_HEADS, WIDTH))
    inside = (head < HEADS)[:, None] & (column < WIDTH)
    partner = partner_of(column, OFFSET, DIM, INTERLEAVED)
    base = x + row * x_row_stride + head[:, None] * x_head_stride
    own = tl.load(base + column, mask=inside, other=0.0).to(tl.float32)
    other = tl.load(base + partner, mask=inside, other=0.0).to(tl.float32)
    cosines = table + row * DIM
    sines = table + (num_rows + row) * DIM
    y = rounded(turned(own, other, cosines, sines, column, OFFSET, DIM), BF16)
    store_rotated(
        y, row, head, column, values, scales, values_row_stride, values_head_stride,
        scales_row_stride, scales_head_stride, scale, HEADS, BLOCK_HEADS, WIDTH, LEVELS, BLOCK,
        BF16, POWER_OF_TWO, FNUZ,
    )  # fmt: skip
