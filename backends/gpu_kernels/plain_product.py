"""Triton function of a small product x W^T of bf16, by programs that split rows, outputs and K; of
the splits of a block the last sums all. Knows no target.
"""

from __future__ import annotations

import triton
import triton.language as tl

from lostwax.backends.gpu_kernels.arrival import settled


@triton.jit
def plain_product(
    program,
    x,  # [T, K] bf16
    weight,  # [N, K] bf16
    out,  # [T, N] f32
    partial,  # [blocks, SPLITS, BLOCK_ROWS, BLOCK_N] f32
    arrived,  # [blocks] i32: zero, and left zero
    real,
    num_rows,
    x_stride,
    out_stride,
    N: tl.constexpr,
    K: tl.constexpr,
    SPLITS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    WIDE_DOT: tl.constexpr,
    SETTLE: tl.constexpr,
):
    """What the program of this number does; tiles behind the real rows have nothing to do, nor has
    what lies behind the last tile. WIDE_DOT takes the product in f32."""
    N_BLOCKS: tl.constexpr = (N + BLOCK_N - 1) // BLOCK_N
    SPLIT_K: tl.constexpr = (K + SPLITS * BLOCK_K - 1) // (SPLITS * BLOCK_K) * BLOCK_K
    split = program % SPLITS
    block = program // SPLITS
    first_row = block // N_BLOCKS * BLOCK_ROWS
    if first_row < real:
        row = (first_row + tl.arange(0, BLOCK_ROWS)).to(tl.int64)
        n = block % N_BLOCKS * BLOCK_N + tl.arange(0, BLOCK_N)
        in_rows = (row < real)[:, None]
        total = tl.zeros((BLOCK_ROWS, BLOCK_N), tl.float32)
        for start in range(0, SPLIT_K, BLOCK_K):
            k = split * SPLIT_K + start + tl.arange(0, BLOCK_K)
            in_k = (k < K)[None, :]
            of_weight = weight + n[:, None] * K + k[None, :]
            w = tl.load(of_weight, mask=(n < N)[:, None] & in_k, other=0.0)
            a = tl.load(x + row[:, None] * x_stride + k[None, :], mask=in_rows & in_k, other=0.0)
            if WIDE_DOT:
                w = w.to(tl.float32)
                a = a.to(tl.float32)
            total = tl.dot(a, w.T, total, input_precision="ieee")
        inside = in_rows & (n < N)[None, :]
        place = tl.arange(0, BLOCK_ROWS)[:, None] * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
        parts = partial + block.to(tl.int64) * SPLITS * (BLOCK_ROWS * BLOCK_N) + place
        tl.store(parts + split * (BLOCK_ROWS * BLOCK_N), total, mask=inside)
        settled(SETTLE)  # every thread's part is written before this program counts itself
        if tl.atomic_add(arrived + block, 1, sem="acq_rel") == SPLITS - 1:
            tl.store(arrived + block, 0)
            whole = tl.zeros((BLOCK_ROWS, BLOCK_N), tl.float32)
            for each in tl.static_range(SPLITS):  # unrolled: the reads do not wait for each other
                part = parts + each * (BLOCK_ROWS * BLOCK_N)
                whole += tl.load(part, mask=inside, other=0.0, cache_modifier=".cg")
            tl.store(out + row[:, None] * out_stride + n[None, :], whole, mask=inside)
