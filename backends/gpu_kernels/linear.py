"""Triton kernels of products with block-scaled weights for few rows. Know no target."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def linear_scaled(
    x,  # [T, K]
    x_scale,  # [T, ceil(K / BLOCK_SCALE)] f32, where X_SCALED; else anything
    weight,  # [N, K] fp8
    weight_scale,  # [ceil(N / BLOCK_SCALE), ceil(K / BLOCK_SCALE)] f32
    out,  # [T, N], or partial sums [splits, T, N] f32
    real_rows,  # [1] i32: rows behind it are left alone
    num_rows,
    N,
    K,
    split_blocks,
    x_stride,
    out_stride,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_SCALE: tl.constexpr,
    X_SCALED: tl.constexpr,
    WIDE_DOT: tl.constexpr,
):
    """x W^T of one block of outputs over one split of K, in blocks of BLOCK_SCALE with scales.

    BLOCK_N divides BLOCK_SCALE. Scaled x enters the dot in its fp8 encoding, else the weights are
    converted to bf16, which holds every fp8 number. WIDE_DOT takes the dots in f32.
    """
    first_row = tl.program_id(2) * BLOCK_ROWS
    real = tl.load(real_rows)
    if first_row >= real:
        return
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    split = tl.program_id(1)
    row = first_row + tl.arange(0, BLOCK_ROWS)
    in_row = row < real
    in_n = n < N
    wide = (K + BLOCK_SCALE - 1) // BLOCK_SCALE
    scales = weight_scale + (tl.program_id(0) * BLOCK_N // BLOCK_SCALE) * wide
    total = tl.zeros((BLOCK_ROWS, BLOCK_N), tl.float32)
    last = tl.minimum((split + 1) * split_blocks, wide)
    for block in range(split * split_blocks, last):
        k = block * BLOCK_SCALE + tl.arange(0, BLOCK_SCALE)
        in_k = k < K
        at = row.to(tl.int64)[:, None] * x_stride + k[None, :]
        a = tl.load(x + at, mask=in_row[:, None] & in_k[None, :], other=0.0)
        inside = in_n[:, None] & in_k[None, :]
        b = tl.load(weight + n.to(tl.int64)[:, None] * K + k[None, :], mask=inside, other=0.0)
        if WIDE_DOT:
            a = a.to(tl.float32)
            b = b.to(tl.float32)
        elif not X_SCALED:
            b = b.to(tl.bfloat16)
        product = tl.dot(a, tl.trans(b), input_precision="ieee") * tl.load(scales + block)
        if X_SCALED:
            factor = tl.load(x_scale + row * wide + block, mask=in_row, other=0.0)
            product = product * factor[:, None]
        total += product
    target = out + (split.to(tl.int64) * num_rows + row)[:, None] * out_stride + n[None, :]
    tl.store(target, total.to(out.dtype.element_ty), mask=in_row[:, None] & in_n[None, :])


@triton.jit
def sum_splits(
    partial,  # [splits, T, N] f32
    out,  # [T, N]
    real_rows,  # [1] i32: rows behind it are left alone
    splits,
    num_rows,
    N,
    out_stride,
    BLOCK: tl.constexpr,
):
    """The sum over splits in their order, rounded once."""
    row = tl.program_id(0)
    if row >= tl.load(real_rows):
        return
    n = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for split in range(0, splits):
        at = (tl.cast(split, tl.int64) * num_rows + row) * N + n
        total += tl.load(partial + at, mask=n < N, other=0.0)
    tl.store(out + row.to(tl.int64) * out_stride + n, total.to(out.dtype.element_ty), mask=n < N)
