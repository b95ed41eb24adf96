"""Triton kernel of the residual add and its RMS norm, which leaves the normed rows as two terms of
fp8 (`fp8_terms`): what products with fp8 weights multiply. Knows no target.
"""

from __future__ import annotations

import triton
import triton.language as tl

from lostwax.backends.gpu_kernels.fp8_terms import two_terms
from lostwax.backends.gpu_kernels.norm_quantise import rms_normed
from lostwax.backends.gpu_kernels.rounding import rounded


@triton.jit
def add_rms_norm_terms(
    residual,  # [T, WIDTH]
    delta,  # [T, WIDTH]
    weight,  # [WIDTH]
    residual_out,  # [T, WIDTH]
    normed,  # [T, WIDTH] bf16, with KEEP_NORMED; else anything
    terms,  # [2 * T, WIDTH] fp8
    scales,  # [T, ceil(WIDTH / BLOCK)] f32
    real_rows,  # [1] i32: rows behind it are left alone
    num_rows,
    residual_stride,
    delta_stride,
    residual_out_stride,
    eps,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    GROUPS: tl.constexpr,
    KEEP_NORMED: tl.constexpr,
    BF16_SUM: tl.constexpr,
    FNUZ: tl.constexpr,
    ROUND_FIRST: tl.constexpr,
):
    """One row: a = residual + delta in f32; residual_out = round(a); normed = rms_norm(a) * weight,
    rounded to bf16; its terms."""
    row = tl.program_id(0).to(tl.int64)
    if row >= tl.load(real_rows):
        return
    group = tl.arange(0, GROUPS)
    column = group[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    inside = column < WIDTH
    a = tl.load(residual + row * residual_stride + column, mask=inside, other=0.0)
    b = tl.load(delta + row * delta_stride + column, mask=inside, other=0.0)
    w = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    total = a.to(tl.float32) + b.to(tl.float32)
    kept = rounded(total, BF16_SUM).to(residual_out.dtype.element_ty)
    tl.store(residual_out + row * residual_out_stride + column, kept, mask=inside)
    y = rms_normed(total, w, eps, WIDTH, 1)
    if KEEP_NORMED:
        tl.store(normed + row * WIDTH + column, y.to(normed.dtype.element_ty), mask=inside)
    high, low, scale = two_terms(y, terms.dtype.element_ty, FNUZ, ROUND_FIRST)
    target = terms + row * WIDTH + column
    tl.store(target, high, mask=inside)
    tl.store(target + tl.cast(num_rows, tl.int64) * WIDTH, low, mask=inside)
    tl.store(scales + row * tl.cdiv(WIDTH, BLOCK) + group, scale, mask=group * BLOCK < WIDTH)
