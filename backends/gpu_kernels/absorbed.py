"""Triton kernels of the two products around absorbed MLA, a head a program. Know no target.

Rows behind `real_rows` ([1] i32 on the device) are left alone.
"""

from __future__ import annotations

import triton
import triton.language as tl

from lostwax.backends.gpu_kernels.fp8_terms import two_terms
from lostwax.backends.gpu_kernels.rounding import quantised, rounded


@triton.jit
def absorb_tiles(
    q_nope,  # [T, HEADS, NOPE], any strides but the last
    kv_b,  # [HEADS * OF_HEAD, LATENT]; of a head's rows the first NOPE
    out,  # [HEADS, T, LATENT] f32
    real_rows,
    num_rows,
    q_row_stride,
    q_head_stride,
    NOPE: tl.constexpr,
    OF_HEAD: tl.constexpr,
    LATENT: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_NOPE: tl.constexpr,
    BLOCK_LATENT: tl.constexpr,
    WIDE_DOT: tl.constexpr,
):
    """out = q_nope W_k of one head, a tile of rows and a block of the latent's columns.

    WIDE_DOT takes the product in f32.
    """
    head = tl.program_id(0).to(tl.int64)
    first_row = tl.program_id(2) * BLOCK_ROWS
    real = tl.load(real_rows)
    # The first tile waits for nothing: it has a real row, or writes none. One `if` would wait.
    if first_row > 0:  # noqa: SIM102
        if first_row >= real:
            return
    k = tl.arange(0, BLOCK_NOPE)
    column = tl.program_id(1) * BLOCK_LATENT + tl.arange(0, BLOCK_LATENT)
    of_weight = kv_b + (head * OF_HEAD + k[:, None]) * LATENT + column[None, :]
    inside = (k < NOPE)[:, None] & (column < LATENT)[None, :]
    w = tl.load(of_weight, mask=inside, other=0.0)
    row = (first_row + tl.arange(0, BLOCK_ROWS)).to(tl.int64)
    of_query = q_nope + row[:, None] * q_row_stride + head * q_head_stride + k[None, :]
    a = tl.load(of_query, mask=(row < real)[:, None] & (k < NOPE)[None, :], other=0.0)
    if WIDE_DOT:
        w = w.to(tl.float32)
        a = a.to(tl.float32)
    y = tl.dot(a, w, input_precision="ieee")
    target = out + (head * num_rows + row)[:, None] * LATENT + column[None, :]
    tl.store(target, y, mask=(row < real)[:, None] & (column < LATENT)[None, :])


@triton.jit
def expand_tiles(
    latent,  # [HEADS, T, LATENT]
    kv_b,  # [HEADS * OF_HEAD, LATENT]; of a head's rows the last VALUE
    out,  # [T, HEADS * VALUE]; u8 with FP8 1; [2 * T, HEADS * VALUE] fp8 with FP8 2
    scales,  # f32, a row and head, with FP8; else anything
    real_rows,
    num_rows,
    out_stride,
    scale_row,
    scale_head,
    OF_HEAD: tl.constexpr,
    VALUE: tl.constexpr,
    LATENT: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_VALUE: tl.constexpr,
    BLOCK_LATENT: tl.constexpr,
    FP8: tl.constexpr,
    POWER_OF_TWO: tl.constexpr,
    FNUZ: tl.constexpr,
    WIDE_DOT: tl.constexpr,
    ROUND_FIRST: tl.constexpr,
):
    """out = latent W_v^T of one head and a tile of rows, rounded to bf16.

    With FP8 a head is a block with one scale: 1 quantises it as `quant.quantise` does, 2 leaves the
    two terms of `fp8_terms`, those of all rows behind one another. WIDE_DOT takes the product in
    f32.
    """
    head = tl.program_id(0).to(tl.int64)
    first_row = tl.program_id(1) * BLOCK_ROWS
    real = tl.load(real_rows)
    # The first tile waits for nothing: it has a real row, or writes none. One `if` would wait.
    if first_row > 0:  # noqa: SIM102
        if first_row >= real:
            return
    row = (first_row + tl.arange(0, BLOCK_ROWS)).to(tl.int64)
    in_rows = row < real
    value = tl.arange(0, BLOCK_VALUE)
    of_weight = kv_b + (head * OF_HEAD + (OF_HEAD - VALUE) + value[:, None]) * LATENT
    of_latent = latent + (head * num_rows + row)[:, None] * LATENT
    total = tl.zeros((BLOCK_ROWS, BLOCK_VALUE), tl.float32)
    for start in range(0, LATENT, BLOCK_LATENT):
        k = start + tl.arange(0, BLOCK_LATENT)
        in_k = (k < LATENT)[None, :]
        w = tl.load(of_weight + k[None, :], mask=(value < VALUE)[:, None] & in_k, other=0.0)
        a = tl.load(of_latent + k[None, :], mask=in_rows[:, None] & in_k, other=0.0)
        if WIDE_DOT:
            w = w.to(tl.float32)
            a = a.to(tl.float32)
        total = tl.dot(a, w.T, total, input_precision="ieee")
    y = rounded(total, 1)
    inside = in_rows[:, None] & (value < VALUE)[None, :]
    target = out + row[:, None] * out_stride + head * VALUE + value[None, :]
    of_scale = scales + row * scale_row + head * scale_head
    if FP8 == 0:
        tl.store(target, y.to(out.dtype.element_ty), mask=inside)
    elif FP8 == 1:
        codes, scale = quantised(y, POWER_OF_TWO, FNUZ)
        tl.store(target, codes, mask=inside)
        tl.store(of_scale, scale, mask=in_rows)
    else:
        high, low, factor = two_terms(y, out.dtype.element_ty, FNUZ, ROUND_FIRST)
        tl.store(of_scale, factor, mask=in_rows)
        tl.store(target, high, mask=inside)
        tl.store(target + tl.cast(num_rows, tl.int64) * out_stride, low, mask=inside)
