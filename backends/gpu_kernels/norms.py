"""Triton kernels of the norms, one row a program. Know no target; run wherever Triton compiles.

Rows behind `real_rows` ([1] i32 on the device) are left alone.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def add_rms_norm(
    residual,
    delta,
    weight,
    residual_out,
    normed,
    real_rows,
    residual_stride,
    delta_stride,
    residual_out_stride,
    normed_stride,
    eps,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    KEEP_SUM: tl.constexpr,
):
    """s = residual + delta in f32; residual_out = round(s); normed = rms_norm(s) * weight.

    The unrounded sum is normed, as the official code does. Without KEEP_SUM residual_out is not
    written (the final norm, after which no residual is needed).
    """
    row = tl.program_id(0).to(tl.int64)
    if row >= tl.load(real_rows):
        return
    column = tl.arange(0, BLOCK)
    inside = column < WIDTH
    a = tl.load(residual + row * residual_stride + column, mask=inside, other=0.0)
    b = tl.load(delta + row * delta_stride + column, mask=inside, other=0.0)
    w = tl.load(weight + column, mask=inside, other=0.0)
    total = a.to(tl.float32) + b.to(tl.float32)
    if KEEP_SUM:
        tl.store(
            residual_out + row * residual_out_stride + column,
            total.to(residual_out.dtype.element_ty),
            mask=inside,
        )
    mean_square = tl.sum(total * total, axis=0) / WIDTH
    y = total * (1.0 / tl.sqrt(mean_square + eps)) * w.to(tl.float32)
    tl.store(normed + row * normed_stride + column, y.to(normed.dtype.element_ty), mask=inside)


@triton.jit
def rms_norm(
    x, weight, normed, real_rows, x_stride, normed_stride, eps,
    WIDTH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """normed = rms_norm(x) * weight, in f32, rounded once. x may be a slice of a wider row."""
    row = tl.program_id(0).to(tl.int64)
    if row >= tl.load(real_rows):
        return
    column = tl.arange(0, BLOCK)
    inside = column < WIDTH
    value = tl.load(x + row * x_stride + column, mask=inside, other=0.0).to(tl.float32)
    w = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    mean_square = tl.sum(value * value, axis=0) / WIDTH
    y = value * (1.0 / tl.sqrt(mean_square + eps)) * w
    tl.store(normed + row * normed_stride + column, y.to(normed.dtype.element_ty), mask=inside)


@triton.jit
def layer_norm(
    x, weight, bias, normed, real_rows, x_stride, normed_stride, eps,
    WIDTH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """normed = weight * (x - mean) / sqrt(var + eps) + bias, in f32, rounded once."""
    row = tl.program_id(0).to(tl.int64)
    if row >= tl.load(real_rows):
        return
    column = tl.arange(0, BLOCK)
    inside = column < WIDTH
    value = tl.load(x + row * x_stride + column, mask=inside, other=0.0).to(tl.float32)
    w = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(bias + column, mask=inside, other=0.0).to(tl.float32)
    mean = tl.sum(value, axis=0) / WIDTH
    centred = tl.where(inside, value - mean, 0.0)
    variance = tl.sum(centred * centred, axis=0) / WIDTH
    y = centred * (1.0 / tl.sqrt(variance + eps)) * w + b
    tl.store(normed + row * normed_stride + column, y.to(normed.dtype.element_ty), mask=inside)
