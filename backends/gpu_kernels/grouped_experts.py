"""Triton kernels of experts over tiles of pairs, fp8 all through. Know no target.

`place_pairs` says which pairs and which expert a tile has, so that every chosen expert's weights
come from memory once, however many rows chose it; a shared expert is one that every row chose. x
and what enters the last product come in one term or two (`fp8_terms`). SWAP and AHEAD as
`scaled_products` has them.
"""

from __future__ import annotations

import triton
import triton.language as tl

from lostwax.backends.gpu_kernels.conversions import to_float, to_fp8
from lostwax.backends.gpu_kernels.fp8_terms import block_scale
from lostwax.backends.gpu_kernels.place_pairs import own_pairs
from lostwax.backends.gpu_kernels.scaled_products import (
    by_rows,
    product,
    scaled,
    take_turns,
    tiles_of,
    zeros_of,
)


@triton.jit
def _bf16(value, ROUND_FIRST: tl.constexpr):
    """f32 as bf16 holds it."""
    return to_float(value, tl.bfloat16, ROUND_FIRST).to(tl.float32)


@triton.jit
def _gated_sums(
    source, low_plane, of_x, scale_block, column, gate, gate_scale, up, up_scale, first, of_weight,
    DIM: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_SCALE: tl.constexpr, TERMS: tl.constexpr,
    SWAP: tl.constexpr, AHEAD: tl.constexpr, WIDE_DOT: tl.constexpr,
):  # fmt: skip
    """gate x and up x, as `product` gives them, of a tile's rows and a block of weights."""
    of_gate = zeros_of(BLOCK_ROWS, BLOCK_SCALE, SWAP)
    of_up = zeros_of(BLOCK_ROWS, BLOCK_SCALE, SWAP)
    stages: tl.constexpr = AHEAD if AHEAD > 0 else None
    for k in tl.range(0, (DIM + BLOCK_SCALE - 1) // BLOCK_SCALE, num_stages=stages):
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
    return of_gate, of_up


@triton.jit
def gated_tiles(
    x,  # [TERMS, T, DIM] fp8
    x_scale,  # f32, a row and block
    gate,  # tiles [BLOCK_SCALE, BLOCK_SCALE] of [EXPERTS * INTER, DIM] fp8
    gate_scale,  # [EXPERTS, ceil(INTER / BLOCK_SCALE), ceil(DIM / BLOCK_SCALE)] f32
    up,  # as gate
    up_scale,
    shared_gate,  # the same of one expert, where SHARED; else anything of the same form
    shared_gate_scale,
    shared_up,
    shared_up_scale,
    hidden,  # [TERMS, slots, INTER] fp8
    hidden_scale,  # [ceil(INTER / BLOCK_SCALE), slots] f32
    pair_of_slot,  # [slots] i32, written where PAIRS
    expert_of_tile,  # [tiles] i32, written where PAIRS
    ids,  # [T, TOP_K] i32, read where PAIRS
    real_rows,  # [1] i32, read where PAIRS
    num_rows,
    tiles,
    x_stride,
    scale_row,
    scale_block,
    EXPERTS: tl.constexpr,
    TOP_K: tl.constexpr,
    SHARED: tl.constexpr,
    INTER: tl.constexpr,
    DIM: tl.constexpr,
    PAIRS: tl.constexpr,
    BINS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_SCALE: tl.constexpr,
    GROUP: tl.constexpr,
    TERMS: tl.constexpr,
    POWER_OF_TWO: tl.constexpr,
    FNUZ: tl.constexpr,
    MAPS: tl.constexpr,
    SWAP: tl.constexpr,
    AHEAD: tl.constexpr,
    WIDE_DOT: tl.constexpr,
    ROUND_FIRST: tl.constexpr,
):
    """silu(gate x) * (up x) of a tile's pairs and one block of INTER, quantised.

    SHARED: expert EXPERTS is the shared one, whose products and hidden rows are rounded to bf16.
    PAIRS, a power of two that holds all of ids, or 0: the tile finds its pairs itself, and its
    first block says them to the launches behind.
    """
    gate = tiles_of(gate, BLOCK_SCALE, BLOCK_SCALE, MAPS)
    up = tiles_of(up, BLOCK_SCALE, BLOCK_SCALE, MAPS)
    shared_gate = tiles_of(shared_gate, BLOCK_SCALE, BLOCK_SCALE, MAPS)
    shared_up = tiles_of(shared_up, BLOCK_SCALE, BLOCK_SCALE, MAPS)
    blocks: tl.constexpr = (INTER + BLOCK_SCALE - 1) // BLOCK_SCALE
    wide: tl.constexpr = (DIM + BLOCK_SCALE - 1) // BLOCK_SCALE
    tile, block = take_turns(tiles, blocks, GROUP)
    slot = tile * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    if PAIRS:
        expert, pair = own_pairs(
            ids, real_rows, tile, EXPERTS, TOP_K, SHARED, BINS, BLOCK_ROWS, PAIRS
        )
        if block == 0:
            tl.store(expert_of_tile + tile, expert)
            tl.store(pair_of_slot + slot, pair)
    else:
        expert = tl.load(expert_of_tile + tile)
    if expert < 0:
        return
    if not PAIRS:
        pair = tl.load(pair_of_slot + slot)
    row = tl.maximum(pair, 0) // (TOP_K + SHARED)
    column = tl.arange(0, BLOCK_SCALE)
    source = x + row.to(tl.int64)[:, None] * x_stride + column[None, :]
    low_plane = tl.cast(num_rows, tl.int64) * x_stride
    of_x = x_scale + row.to(tl.int64) * scale_row
    if SHARED:
        is_shared = expert == EXPERTS
    else:
        is_shared: tl.constexpr = False
    if is_shared:
        of_gate, of_up = _gated_sums(
            source, low_plane, of_x, scale_block, column, shared_gate, shared_gate_scale, shared_up,
            shared_up_scale, block * BLOCK_SCALE, block * wide, DIM, BLOCK_ROWS, BLOCK_SCALE, TERMS,
            SWAP, AHEAD, WIDE_DOT,
        )  # fmt: skip
        of_gate, of_up = _bf16(of_gate, ROUND_FIRST), _bf16(of_up, ROUND_FIRST)
    else:
        first = expert * INTER + block * BLOCK_SCALE
        of_weight = (expert.to(tl.int64) * blocks + block) * wide
        of_gate, of_up = _gated_sums(
            source, low_plane, of_x, scale_block, column, gate, gate_scale, up, up_scale, first,
            of_weight, DIM, BLOCK_ROWS, BLOCK_SCALE, TERMS, SWAP, AHEAD, WIDE_DOT,
        )  # fmt: skip
    value = of_gate / (1.0 + tl.exp(-of_gate)) * of_up
    if SHARED:
        value = tl.where(is_shared, _bf16(value, ROUND_FIRST), value)
    value = by_rows(value, SWAP)
    out = block * BLOCK_SCALE + column
    own = (out < INTER)[None, :]  # behind INTER lies the next expert
    value = tl.where(own, value, 0.0)
    factor = block_scale(tl.max(tl.abs(value), axis=1), TERMS, POWER_OF_TWO, FNUZ)
    slots = tl.cast(tiles, tl.int64) * BLOCK_ROWS
    tl.store(hidden_scale + block * slots + slot, factor)
    value = tl.div_rn(value, factor[:, None] + tl.zeros_like(value))
    high = to_fp8(value, hidden.dtype.element_ty, FNUZ, ROUND_FIRST)
    target = hidden + slot.to(tl.int64)[:, None] * INTER + out[None, :]
    tl.store(target, high, mask=own)
    if TERMS == 2:
        low = to_fp8(value - high.to(tl.float32), hidden.dtype.element_ty, FNUZ, ROUND_FIRST)
        tl.store(target + slots * INTER, low, mask=own)


@triton.jit
def _down_sum(
    hidden, hidden_scale, first_slot, slots, down, down_scale, first, of_weight,
    INTER: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK_SCALE: tl.constexpr, TERMS: tl.constexpr, SWAP: tl.constexpr, AHEAD: tl.constexpr,
    WIDE_DOT: tl.constexpr,
):  # fmt: skip
    """down hidden, as `product` gives it, of a tile's slots and BLOCK_N rows of the weight."""
    slot = first_slot + tl.arange(0, BLOCK_ROWS)
    total = zeros_of(BLOCK_ROWS, BLOCK_N, SWAP)
    stages: tl.constexpr = AHEAD if AHEAD > 0 else None
    for k in tl.range(0, (INTER + BLOCK_SCALE - 1) // BLOCK_SCALE, num_stages=stages):
        w = down.load([first, k * BLOCK_SCALE])
        a = hidden.load([first_slot, k * BLOCK_SCALE])
        of_slot = tl.load(hidden_scale + tl.cast(k, tl.int64) * slots + slot)
        found = product(a, w, zeros_of(BLOCK_ROWS, BLOCK_N, SWAP), SWAP, WIDE_DOT)
        if TERMS == 2:
            low = hidden.load([slots + first_slot, k * BLOCK_SCALE])
            found = product(low, w, found, SWAP, WIDE_DOT)
        total += scaled(found, of_slot * tl.load(down_scale + of_weight + k), SWAP)
    return total


@triton.jit
def down_tiles(
    hidden,  # tiles [BLOCK_ROWS, BLOCK_SCALE] of [TERMS * slots, INTER] fp8
    hidden_scale,  # [ceil(INTER / BLOCK_SCALE), slots] f32
    down,  # tiles [BLOCK_N, BLOCK_SCALE] of [EXPERTS * DIM, INTER] fp8
    down_scale,  # [EXPERTS, ceil(DIM / BLOCK_SCALE), ceil(INTER / BLOCK_SCALE)] f32
    shared_down,  # the same of one expert, where SHARED; else anything of the same form
    shared_down_scale,
    of_pair,  # [T * (TOP_K + SHARED), DIM]
    pair_of_slot,  # [slots] i32
    expert_of_tile,  # [tiles] i32
    tiles,
    EXPERTS: tl.constexpr,
    INTER: tl.constexpr,
    DIM: tl.constexpr,
    SHARED: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_SCALE: tl.constexpr,
    GROUP: tl.constexpr,
    TERMS: tl.constexpr,
    MAPS: tl.constexpr,
    SWAP: tl.constexpr,
    AHEAD: tl.constexpr,
    WIDE_DOT: tl.constexpr,
):
    """down hidden of a tile's pairs and BLOCK_N outputs; BLOCK_N divides BLOCK_SCALE.

    SHARED: expert EXPERTS is the shared one.
    """
    hidden = tiles_of(hidden, BLOCK_ROWS, BLOCK_SCALE, MAPS)
    down = tiles_of(down, BLOCK_N, BLOCK_SCALE, MAPS)
    shared_down = tiles_of(shared_down, BLOCK_N, BLOCK_SCALE, MAPS)
    blocks: tl.constexpr = (DIM + BLOCK_N - 1) // BLOCK_N
    wide: tl.constexpr = (INTER + BLOCK_SCALE - 1) // BLOCK_SCALE
    high: tl.constexpr = (DIM + BLOCK_SCALE - 1) // BLOCK_SCALE
    tile, block = take_turns(tiles, blocks, GROUP)
    expert = tl.load(expert_of_tile + tile)
    if expert < 0:
        return
    first_slot, slots = tile * BLOCK_ROWS, tiles * BLOCK_ROWS
    of_block = block * BLOCK_N // BLOCK_SCALE
    if SHARED:
        is_shared = expert == EXPERTS
    else:
        is_shared: tl.constexpr = False
    if is_shared:
        total = _down_sum(
            hidden, hidden_scale, first_slot, slots, shared_down, shared_down_scale,
            block * BLOCK_N, of_block * wide, INTER, BLOCK_ROWS, BLOCK_N, BLOCK_SCALE, TERMS, SWAP,
            AHEAD, WIDE_DOT,
        )  # fmt: skip
        # Keeps the ends of both ways apart: the compiler merges equal ones, and then gives each
        # way's stages shared memory of their own.
        total += 0.0
    else:
        first = expert * DIM + block * BLOCK_N
        of_weight = (expert.to(tl.int64) * high + of_block) * wide
        total = _down_sum(
            hidden, hidden_scale, first_slot, slots, down, down_scale, first, of_weight, INTER,
            BLOCK_ROWS, BLOCK_N, BLOCK_SCALE, TERMS, SWAP, AHEAD, WIDE_DOT,
        )  # fmt: skip
    pair = tl.load(pair_of_slot + first_slot + tl.arange(0, BLOCK_ROWS))
    n = block * BLOCK_N + tl.arange(0, BLOCK_N)
    target = of_pair + pair.to(tl.int64)[:, None] * DIM + n[None, :]
    inside = (pair >= 0)[:, None] & (n < DIM)[None, :]
    tl.store(target, by_rows(total, SWAP).to(of_pair.dtype.element_ty), mask=inside)
