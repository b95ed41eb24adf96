"""Triton kernels of the rotary embedding, and of its table, made once a step. Know no target."""

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


@triton.jit
def _f64(BITS: tl.constexpr):
    """The f64 of these bits: a constant in decimal would be rounded to f32."""
    return tl.full((), BITS, tl.int64).to(tl.float64, bitcast=True)


@triton.jit
def rope_table(
    positions,  # [T] i32
    table,  # [2, T, DIM] f32: cosines, signed sines
    real_rows,  # [1] i32: rows behind it are left alone
    num_rows,
    DIM: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    LOG2_THETA: tl.constexpr,  # bits of an f64, as the three below
    INVERSE_FACTOR: tl.constexpr,
    INVERSE_SPAN: tl.constexpr,
    MAGNITUDE: tl.constexpr,
    LOW: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One row. The angles are f64: at position 100,000 f32 would lose the third decimal.

    Pair i turns by theta^(-2 i / DIM) a position, which YaRN divides by the factor, as much as pair
    i lies behind LOW (arXiv:2309.00071, section 3.2).
    """
    row = tl.program_id(0).to(tl.int64)
    if row >= tl.load(real_rows):
        return
    pair = tl.arange(0, BLOCK)
    inside = pair < DIM // 2
    frequency = tl.exp2(pair.to(tl.float64) * (-2.0 / DIM) * _f64(LOG2_THETA))
    ramp = (pair - LOW).to(tl.float64) * _f64(INVERSE_SPAN)
    ramp = tl.minimum(tl.maximum(ramp, 0.0), 1.0)
    frequency = frequency * (ramp * _f64(INVERSE_FACTOR) + (1.0 - ramp))
    angle = tl.load(positions + row).to(tl.float64) * frequency
    cosine = (tl.cos(angle) * _f64(MAGNITUDE)).to(tl.float32)
    sine = (tl.sin(angle) * _f64(MAGNITUDE)).to(tl.float32)
    if INTERLEAVED:
        first = 2 * pair
        second = first + 1
    else:
        first = pair
        second = pair + DIM // 2
    cosines = table + row * DIM
    sines = table + (num_rows + row) * DIM
    tl.store(cosines + first, cosine, mask=inside)
    tl.store(cosines + second, cosine, mask=inside)
    tl.store(sines + first, -sine, mask=inside)
    tl.store(sines + second, sine, mask=inside)
