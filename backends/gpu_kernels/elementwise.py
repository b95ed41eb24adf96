"""Triton kernels of elementwise ops. Know no target."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def silu_mul(
    gate, up, out, real_rows, gate_stride, up_stride, out_stride, WIDTH, BLOCK: tl.constexpr
):
    """out = silu(gate) * up of one row and block of columns, in f32, rounded once.

    Rows behind `real_rows` ([1] i32 on the device) are left alone.
    """
    row = tl.program_id(0).to(tl.int64)
    if row >= tl.load(real_rows):
        return
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < WIDTH
    g = tl.load(gate + row * gate_stride + column, mask=inside, other=0.0).to(tl.float32)
    u = tl.load(up + row * up_stride + column, mask=inside, other=0.0).to(tl.float32)
    y = g / (1.0 + tl.exp(-g)) * u
    tl.store(out + row * out_stride + column, y.to(out.dtype.element_ty), mask=inside)


@triton.jit
def add(a, b, out, real_rows, a_stride, b_stride, out_stride, WIDTH, BLOCK: tl.constexpr):
    """out = a + b of one row and block of columns, in f32, rounded once.

    Rows behind `real_rows` ([1] i32 on the device) are left alone.
    """
    row = tl.program_id(0).to(tl.int64)
    if row >= tl.load(real_rows):
        return
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < WIDTH
    x = tl.load(a + row * a_stride + column, mask=inside, other=0.0).to(tl.float32)
    y = tl.load(b + row * b_stride + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * out_stride + column, (x + y).to(out.dtype.element_ty), mask=inside)
