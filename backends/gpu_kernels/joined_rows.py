"""Triton kernels behind products whose weights lie joined: they sum splits and part the columns.

A joined product leaves [splits, T, N] planes; the sum of all is what the products give, rounded to
bf16. Rows behind `real_rows` ([1] i32 on the device) are left alone. Know no target.
"""

from __future__ import annotations

import triton
import triton.language as tl

from lostwax.backends.gpu_kernels.conversions import to_float


@triton.jit
def summed(planes, plane, inside, SPLITS: tl.constexpr, ROUND_FIRST: tl.constexpr):
    """What the products gave at `planes`, in f32: the sum of all planes in their order, in bf16."""
    total = tl.load(planes, mask=inside, other=0.0).to(tl.float32)
    for _ in tl.static_range(1, SPLITS):
        planes += plane
        total += tl.load(planes, mask=inside, other=0.0).to(tl.float32)
    return to_float(total, tl.bfloat16, ROUND_FIRST).to(tl.float32)


@triton.jit
def gated_rows(
    joined,  # [SPLITS, T, 2 * WIDTH]
    out,  # [T, WIDTH]
    real_rows,
    num_rows,
    out_stride,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    SPLITS: tl.constexpr,
    ROUND_FIRST: tl.constexpr,
):
    """out = silu(gate) * up of one row and block of columns; up lies behind gate."""
    row = tl.program_id(0).to(tl.int64)
    if row >= tl.load(real_rows):
        return
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < WIDTH
    plane = tl.cast(num_rows, tl.int64) * (2 * WIDTH)
    of_row = joined + row * (2 * WIDTH) + column
    g = summed(of_row, plane, inside, SPLITS, ROUND_FIRST)
    u = summed(of_row + WIDTH, plane, inside, SPLITS, ROUND_FIRST)
    y = g / (1.0 + tl.exp(-g)) * u
    tl.store(
        out + row * out_stride + column, to_float(y, out.dtype.element_ty, ROUND_FIRST), mask=inside
    )


@triton.jit
def projected_rows(
    joined,  # [SPLITS, T, Q + K + KV]
    q_weight,  # [Q]
    k_weight,  # [K]
    k_bias,  # [K]
    q_normed,  # [T, Q]
    k_normed,  # [T, K]
    kv,  # [T, KV]
    real_rows,
    num_rows,
    q_stride,
    k_stride,
    kv_stride,
    q_eps,
    k_eps,
    Q: tl.constexpr,
    K: tl.constexpr,
    KV: tl.constexpr,
    BLOCK: tl.constexpr,  # a power of two that holds each
    SPLITS: tl.constexpr,
    ROUND_FIRST: tl.constexpr,
):
    """One part of a row: q through its RMS norm, k through its layer norm, kv as it is."""
    row = tl.program_id(0).to(tl.int64)
    if row >= tl.load(real_rows):
        return
    part = tl.program_id(1)
    column = tl.arange(0, BLOCK)
    plane = tl.cast(num_rows, tl.int64) * (Q + K + KV)
    of_row = joined + row * (Q + K + KV) + column
    if part == 0:
        inside = column < Q
        value = summed(of_row, plane, inside, SPLITS, ROUND_FIRST)
        w = tl.load(q_weight + column, mask=inside, other=0.0).to(tl.float32)
        mean_square = tl.sum(value * value, axis=0) / Q
        y = value * (1.0 / tl.sqrt(mean_square + q_eps)) * w
        target = q_normed + row * q_stride + column
        tl.store(target, to_float(y, q_normed.dtype.element_ty, ROUND_FIRST), mask=inside)
    elif part == 1:
        inside = column < K
        value = summed(of_row + Q, plane, inside, SPLITS, ROUND_FIRST)
        w = tl.load(k_weight + column, mask=inside, other=0.0).to(tl.float32)
        b = tl.load(k_bias + column, mask=inside, other=0.0).to(tl.float32)
        mean = tl.sum(value, axis=0) / K
        centred = tl.where(inside, value - mean, 0.0)
        variance = tl.sum(centred * centred, axis=0) / K
        y = centred * (1.0 / tl.sqrt(variance + k_eps)) * w + b
        target = k_normed + row * k_stride + column
        tl.store(target, to_float(y, k_normed.dtype.element_ty, ROUND_FIRST), mask=inside)
    else:
        inside = column < KV
        value = summed(of_row + (Q + K), plane, inside, SPLITS, ROUND_FIRST)
        tl.store(
            kv + row * kv_stride + column,
            to_float(value, kv.dtype.element_ty, ROUND_FIRST),
            mask=inside,
        )
