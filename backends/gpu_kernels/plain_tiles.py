"""Triton kernel of x W^T of plain elements, summed in f32, for any rows. Knows no target."""

from __future__ import annotations

import triton
import triton.language as tl

from lostwax.backends.gpu_kernels.conversions import to_float
from lostwax.backends.gpu_kernels.scaled_products import product, take_turns, tiles_of, zeros_of


@triton.jit
def plain_tiles(
    x,  # tiles [BLOCK_ROWS, BLOCK_K] of [T, K]
    weight,  # tiles [BLOCK_N, BLOCK_K] of [N, K]
    out,  # [T, N]
    real_rows,  # [1] i32: rows behind it are left alone
    num_rows,
    N,
    K,
    out_stride,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr,
    MAPS: tl.constexpr,
    WIDE_DOT: tl.constexpr,
    ROUND_FIRST: tl.constexpr,
):
    """One tile of outputs over all of K."""
    x = tiles_of(x, BLOCK_ROWS, BLOCK_K, MAPS)
    weight = tiles_of(weight, BLOCK_N, BLOCK_K, MAPS)
    row_tiles = (num_rows + BLOCK_ROWS - 1) // BLOCK_ROWS
    tile, n_block = take_turns(row_tiles, (N + BLOCK_N - 1) // BLOCK_N, GROUP)
    real = tl.load(real_rows)
    first_row, first_n = tile * BLOCK_ROWS, n_block * BLOCK_N
    if first_row >= real:
        return
    total = zeros_of(BLOCK_ROWS, BLOCK_N, False)
    for start in range(0, K, BLOCK_K):
        a = x.load([first_row, start])
        w = weight.load([first_n, start])
        total = product(a, w, total, False, WIDE_DOT)
    row = first_row + tl.arange(0, BLOCK_ROWS)
    n = first_n + tl.arange(0, BLOCK_N)
    target = out + row.to(tl.int64)[:, None] * out_stride + n[None, :]
    inside = (row < real)[:, None] & (n < N)[None, :]
    tl.store(target, to_float(total, out.dtype.element_ty, ROUND_FIRST), mask=inside)
