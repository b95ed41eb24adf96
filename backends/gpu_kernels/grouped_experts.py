"""Triton kernels of routed experts over tiles of pairs, fp8 all through. Know no target.

`place_pairs` says which pairs and which expert a tile has, so that every chosen expert's weights
come from memory once, however many rows chose it. x and what enters the last product come in one
term or two (`fp8_terms`). SWAP and AHEAD as `scaled_products` has them.
"""

from __future__ import annotations

import triton
import triton.language as tl

from lostwax.backends.gpu_kernels.conversions import to_fp8
from lostwax.backends.gpu_kernels.fp8_terms import block_scale
from lostwax.backends.gpu_kernels.scaled_products import (
    by_rows,
    product,
    scaled,
    take_turns,
    zeros_of,
)


@triton.jit
def gated_tiles(
    x,  # [TERMS, T, DIM] fp8
    x_scale,  # f32, a row and block
    gate,  # tiles [BLOCK_SCALE, BLOCK_SCALE] of [E * INTER, DIM] fp8
    gate_scale,  # [E, ceil(INTER / BLOCK_SCALE), ceil(DIM / BLOCK_SCALE)] f32
    up,  # as gate
    up_scale,
    hidden,  # [TERMS, slots, INTER] fp8
    hidden_scale,  # [ceil(INTER / BLOCK_SCALE), slots] f32
    pair_of_slot,  # [slots] i32
    expert_of_tile,  # [tiles] i32
    num_rows,
    tiles,
    x_stride,
    scale_row,
    scale_block,
    INTER: tl.constexpr,
    DIM: tl.constexpr,
    TOP_K: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_SCALE: tl.constexpr,
    GROUP: tl.constexpr,
    TERMS: tl.constexpr,
    POWER_OF_TWO: tl.constexpr,
    SWAP: tl.constexpr,
    AHEAD: tl.constexpr,
    WIDE_DOT: tl.constexpr,
    ROUND_FIRST: tl.constexpr,
):
    """silu(gate x) * (up x) of a tile's pairs and one block of INTER, quantised."""
    blocks: tl.constexpr = (INTER + BLOCK_SCALE - 1) // BLOCK_SCALE
    wide: tl.constexpr = (DIM + BLOCK_SCALE - 1) // BLOCK_SCALE
    tile, block = take_turns(tiles, blocks, GROUP)
    expert = tl.load(expert_of_tile + tile)
    if expert < 0:
        return
    slot = tile * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    row = tl.maximum(tl.load(pair_of_slot + slot), 0) // TOP_K
    column = tl.arange(0, BLOCK_SCALE)
    source = x + row.to(tl.int64)[:, None] * x_stride + column[None, :]
    low_plane = tl.cast(num_rows, tl.int64) * x_stride
    of_x = x_scale + row.to(tl.int64) * scale_row
    first = expert * INTER + block * BLOCK_SCALE
    of_weight = (expert.to(tl.int64) * blocks + block) * wide
    of_gate = zeros_of(BLOCK_ROWS, BLOCK_SCALE, SWAP)
    of_up = zeros_of(BLOCK_ROWS, BLOCK_SCALE, SWAP)
    stages: tl.constexpr = AHEAD if AHEAD > 0 else None
    for k in tl.range(0, wide, num_stages=stages):
        g = gate.load([first, k * BLOCK_SCALE])
        u = up.load([first, k * BLOCK_SCALE])
        inside = (column < DIM - k * BLOCK_SCALE)[None, :]
        a = tl.load(source + k * BLOCK_SCALE, mask=inside, other=0.0)
        factor = tl.load(of_x + tl.cast(k, tl.int64) * scale_block)
        of_g = product(a, g, zeros_of(BLOCK_ROWS, BLOCK_SCALE, SWAP), SWAP, WIDE_DOT)
        of_u = product(a, u, zeros_of(BLOCK_ROWS, BLOCK_SCALE, SWAP), SWAP, WIDE_DOT)
        if TERMS == 2:
            low = tl.load(source + low_plane + k * BLOCK_SCALE, mask=inside, other=0.0)
            of_g = product(low, g, of_g, SWAP, WIDE_DOT)
            of_u = product(low, u, of_u, SWAP, WIDE_DOT)
        of_gate += scaled(of_g, factor * tl.load(gate_scale + of_weight + k), SWAP)
        of_up += scaled(of_u, factor * tl.load(up_scale + of_weight + k), SWAP)
    value = by_rows(of_gate / (1.0 + tl.exp(-of_gate)) * of_up, SWAP)
    out = block * BLOCK_SCALE + column
    own = (out < INTER)[None, :]  # behind INTER lies the next expert
    value = tl.where(own, value, 0.0)
    factor = block_scale(tl.max(tl.abs(value), axis=1), TERMS, POWER_OF_TWO)
    slots = tl.cast(tiles, tl.int64) * BLOCK_ROWS
    tl.store(hidden_scale + block * slots + slot, factor)
    value = tl.div_rn(value, factor[:, None] + tl.zeros_like(value))
    high = to_fp8(value, hidden.dtype.element_ty, ROUND_FIRST)
    target = hidden + slot.to(tl.int64)[:, None] * INTER + out[None, :]
    tl.store(target, high, mask=own)
    if TERMS == 2:
        low = to_fp8(value - high.to(tl.float32), hidden.dtype.element_ty, ROUND_FIRST)
        tl.store(target + slots * INTER, low, mask=own)


@triton.jit
def down_tiles(
    hidden,  # tiles [BLOCK_ROWS, BLOCK_SCALE] of [TERMS * slots, INTER] fp8
    hidden_scale,  # [ceil(INTER / BLOCK_SCALE), slots] f32
    down,  # tiles [BLOCK_N, BLOCK_SCALE] of [E * DIM, INTER] fp8
    down_scale,  # [E, ceil(DIM / BLOCK_SCALE), ceil(INTER / BLOCK_SCALE)] f32
    of_pair,  # [T * TOP_K, DIM]
    pair_of_slot,  # [slots] i32
    expert_of_tile,  # [tiles] i32
    tiles,
    INTER: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_SCALE: tl.constexpr,
    GROUP: tl.constexpr,
    TERMS: tl.constexpr,
    SWAP: tl.constexpr,
    AHEAD: tl.constexpr,
    WIDE_DOT: tl.constexpr,
):
    """down hidden of a tile's pairs and BLOCK_N outputs; BLOCK_N divides BLOCK_SCALE."""
    blocks: tl.constexpr = (DIM + BLOCK_N - 1) // BLOCK_N
    wide: tl.constexpr = (INTER + BLOCK_SCALE - 1) // BLOCK_SCALE
    high: tl.constexpr = (DIM + BLOCK_SCALE - 1) // BLOCK_SCALE
    tile, block = take_turns(tiles, blocks, GROUP)
    expert = tl.load(expert_of_tile + tile)
    if expert < 0:
        return
    first_slot = tile * BLOCK_ROWS
    slot = first_slot + tl.arange(0, BLOCK_ROWS)
    slots = tiles * BLOCK_ROWS
    first = expert * DIM + block * BLOCK_N
    of_weight = (expert.to(tl.int64) * high + block * BLOCK_N // BLOCK_SCALE) * wide
    total = zeros_of(BLOCK_ROWS, BLOCK_N, SWAP)
    stages: tl.constexpr = AHEAD if AHEAD > 0 else None
    for k in tl.range(0, wide, num_stages=stages):
        w = down.load([first, k * BLOCK_SCALE])
        a = hidden.load([first_slot, k * BLOCK_SCALE])
        of_slot = tl.load(hidden_scale + tl.cast(k, tl.int64) * slots + slot)
        found = product(a, w, zeros_of(BLOCK_ROWS, BLOCK_N, SWAP), SWAP, WIDE_DOT)
        if TERMS == 2:
            low = hidden.load([slots + first_slot, k * BLOCK_SCALE])
            found = product(low, w, found, SWAP, WIDE_DOT)
        total += scaled(found, of_slot * tl.load(down_scale + of_weight + k), SWAP)
    pair = tl.load(pair_of_slot + slot)
    n = block * BLOCK_N + tl.arange(0, BLOCK_N)
    target = of_pair + pair.to(tl.int64)[:, None] * DIM + n[None, :]
    inside = (pair >= 0)[:, None] & (n < DIM)[None, :]
    tl.store(target, by_rows(total, SWAP).to(of_pair.dtype.element_ty), mask=inside)
