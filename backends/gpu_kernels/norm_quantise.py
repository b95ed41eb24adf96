"""Triton kernels of RMS norms whose result is rounded to fp8, one row a program. Know no target.

A row is GROUPS blocks of BLOCK columns; rows behind `real_rows` ([1] i32 on the device) are left
alone. fp8 is written as its bits.
"""

from __future__ import annotations

import triton
import triton.language as tl

from lostwax.backends.gpu_kernels.rounding import quantised, rounded


@triton.jit
def rms_normed(x, w, eps, WIDTH: tl.constexpr, BF16: tl.constexpr):
    """x * w / rms(x) of f32 x [G, B], zero behind WIDTH; rounded to bf16 with BF16."""
    mean_square = tl.sum(tl.sum(x * x, axis=1), axis=0) / WIDTH
    return rounded(x * tl.div_rn(1.0, tl.sqrt_rn(mean_square + eps)) * w, BF16)


@triton.jit
def rms_norm_quantise(
    x,  # [T, WIDTH], may be a slice of wider rows
    weight,  # [WIDTH]
    values,  # [T, WIDTH] u8
    scales,  # [T, ceil(WIDTH / BLOCK)] f32
    real_rows,
    x_stride,
    values_stride,
    scales_stride,
    eps,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    GROUPS: tl.constexpr,
    BF16: tl.constexpr,
    POWER_OF_TWO: tl.constexpr,
    FNUZ: tl.constexpr,
):
    """values = fp8(y / s) with y = rms_norm(x) * weight in f32, rounded to bf16 first with BF16."""
    row = tl.program_id(0).to(tl.int64)
    if row >= tl.load(real_rows):
        return
    group = tl.arange(0, GROUPS)
    column = group[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    inside = column < WIDTH
    value = tl.load(x + row * x_stride + column, mask=inside, other=0.0).to(tl.float32)
    w = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    y = rms_normed(value, w, eps, WIDTH, BF16)
    codes, scale = quantised(y, POWER_OF_TWO, FNUZ)
    tl.store(values + row * values_stride + column, codes, mask=inside)
    tl.store(scales + row * scales_stride + group, scale, mask=group * BLOCK < WIDTH)


@triton.jit
def add_rms_norm_quantise(
    residual,  # [T, WIDTH]
    delta,  # [T, WIDTH]
    weight,  # [WIDTH]
    residual_out,  # [T, WIDTH]
    normed,  # [T, WIDTH], with KEEP_NORMED; else anything
    values,  # [T, WIDTH] u8
    scales,  # [T, ceil(WIDTH / BLOCK)] f32
    real_rows,
    residual_stride,
    delta_stride,
    residual_out_stride,
    normed_stride,
    values_stride,
    scales_stride,
    eps,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    GROUPS: tl.constexpr,
    BF16: tl.constexpr,
    POWER_OF_TWO: tl.constexpr,
    FNUZ: tl.constexpr,
    KEEP_NORMED: tl.constexpr,
    BF16_SUM: tl.constexpr,
):
    """a = residual + delta in f32; residual_out = round(a); y = rms_norm(a) * weight, rounded to
    bf16 with BF16; values = fp8(y / s).
    """
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
    y = rms_normed(total, w, eps, WIDTH, BF16)
    if KEEP_NORMED:
        at = normed + row * normed_stride + column
        tl.store(at, y.to(normed.dtype.element_ty), mask=inside)
    codes, scale = quantised(y, POWER_OF_TWO, FNUZ)
    tl.store(values + row * values_stride + column, codes, mask=inside)
    tl.store(scales + row * scales_stride + group, scale, mask=group * BLOCK < WIDTH)
