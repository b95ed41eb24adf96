"""Triton kernel between the products of a gated MLP: what enters the second, in fp8.

Knows no target.
"""

from __future__ import annotations

import triton
import triton.language as tl

from lostwax.backends.gpu_kernels.conversions import to_float
from lostwax.backends.gpu_kernels.fp8_terms import store_terms
from lostwax.backends.gpu_kernels.joined_rows import summed


@triton.jit
def gated_terms(
    joined,  # [SPLITS, T, 2 * WIDTH]: planes of gate, and of up behind it
    terms,  # [TERMS, T, WIDTH] fp8
    scale,  # f32, a row and block
    real_rows,  # [1] i32: rows behind it are left alone
    num_rows,
    scale_row,
    scale_block,
    WIDTH: tl.constexpr,
    BLOCK_SCALE: tl.constexpr,
    BLOCKS: tl.constexpr,
    SPLITS: tl.constexpr,
    TERMS: tl.constexpr,
    POWER_OF_TWO: tl.constexpr,
    FNUZ: tl.constexpr,
    ROUND_FIRST: tl.constexpr,
):
    """silu(gate) * up of one row and BLOCKS blocks, rounded to bf16, then quantised."""
    row = tl.program_id(0)
    if row >= tl.load(real_rows):
        return
    block = tl.program_id(1) * BLOCKS + tl.arange(0, BLOCKS)
    column = block[:, None] * BLOCK_SCALE + tl.arange(0, BLOCK_SCALE)[None, :]
    inside = column < WIDTH
    plane = tl.cast(num_rows, tl.int64) * (2 * WIDTH)
    of_row = joined + row.to(tl.int64) * (2 * WIDTH) + column
    g = summed(of_row, plane, inside, SPLITS, ROUND_FIRST)
    u = summed(of_row + WIDTH, plane, inside, SPLITS, ROUND_FIRST)
    y = to_float(g / (1.0 + tl.exp(-g)) * u, tl.bfloat16, ROUND_FIRST).to(tl.float32)
    store_terms(
        y, row, block, column, terms, scale, num_rows, WIDTH, scale_row, scale_block, BLOCK_SCALE,
        TERMS, POWER_OF_TWO, FNUZ, ROUND_FIRST,
    )  # fmt: skip
