"""Triton kernel of the rotary embedding over a table made once a step. Knows no target."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def partner_of(column, OFFSET: tl.constexpr, DIM: tl.constexpr, INTERLEAVED: tl.constexpr):
    """The column that each one turns with; columns outside the DIM from OFFSET have themselves."""
    at = column - OFFSET
    if INTERLEAVED:
        partner = OFFSET + (at ^ 1)
    else:
        partner = OFFSET + tl.where(at < DIM // 2, at + DIM // 2, at - DIM // 2)
    return tl.where((at >= 0) & (at < DIM), partner, column)


@triton.jit
def turned(own, other, cosines, sines, column, OFFSET: tl.constexpr, DIM: tl.constexpr):
    """f32 elements of one row turned with their partners; those outside stay as they are.

    cosines, signed sines: f32 [DIM] of the row.
    """
    at = column - OFFSET
    inside = (at >= 0) & (at < DIM)
    cosine = tl.load(cosines + at, mask=inside, other=1.0)
    sine = tl.load(sines + at, mask=inside, other=0.0)
    return tl.where(inside, own * cosine + other * sine, own)


@triton.jit
def rotate(
    x,  # [T, HEADS, WIDTH], any strides but the last
    table,  # [2, T, DIM] f32: cosines, signed sines
    out,  # [T, HEADS, WIDTH]
    real_rows,  # [1] i32: rows behind it are left alone
    num_rows,
    x_row_stride,
    x_head_stride,
    out_row_stride,
    out_head_stride,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    OFFSET: tl.constexpr,
    DIM: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    BLOCK_HEADS: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
):
    """One row and block of heads: DIM elements from OFFSET are rotated, the others copied."""
    row = tl.program_id(0).to(tl.int64)
    if row >= tl.load(real_rows):
        return
    head = tl.program_id(1) * BLOCK_HEADS + tl.arange(0, BLOCK_HEADS)[:, None]
    column = tl.arange(0, BLOCK_WIDTH)[None, :]
    inside = (head < HEADS) & (column < WIDTH)
    partner = partner_of(column, OFFSET, DIM, INTERLEAVED)
    base = x + row * x_row_stride + head.to(tl.int64) * x_head_stride
    own = tl.load(base + column, mask=inside, other=0.0).to(tl.float32)
    other = tl.load(base + partner, mask=inside, other=0.0).to(tl.float32)
    cosines = table + row * DIM
    sines = table + (num_rows + row) * DIM
    result = turned(own, other, cosines, sines, column, OFFSET, DIM)
    target = out + row * out_row_stride + head.to(tl.int64) * out_head_stride + column
    tl.store(target, result.to(out.dtype.element_ty), mask=inside)
