"""Triton kernels that sort (row, expert) pairs by expert, bring their rows there, and sum what
these give. Know no target.

A pair is a row with one of its choices. Slots are places of pairs: each expert's stand together,
filled up to whole tiles. No atomics: pairs keep their order, and a row's sum has a fixed one.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def place_pairs(
    ids,  # [T, TOP_K] i32, -1 for no expert
    pair_of_slot,  # [tiles * BLOCK_ROWS] i32: -1 in filled-up slots
    expert_of_tile,  # [tiles] i32: -1 behind the last expert's
    real_rows,  # [1] i32: pairs of rows behind it have no slot
    tiles,
    EXPERTS: tl.constexpr,
    TOP_K: tl.constexpr,
    BINS: tl.constexpr,  # a power of two that is at least EXPERTS
    BLOCK_ROWS: tl.constexpr,
    BLOCK_PAIRS: tl.constexpr,
):
    """Slots and tiles of one expert, which counts the pairs of those before it by itself."""
    expert = tl.program_id(0)
    pairs = tl.load(real_rows).to(tl.int64) * TOP_K
    lane = tl.arange(0, BLOCK_PAIRS)
    counts = tl.zeros((BINS,), tl.int32)
    for start in range(0, pairs, BLOCK_PAIRS):
        chosen = tl.load(ids + start + lane, mask=start + lane < pairs, other=-1)
        known = (chosen >= 0) & (chosen < EXPERTS)
        counts += tl.histogram(tl.where(known, chosen, 0), BINS, mask=known)
    each = (counts + BLOCK_ROWS - 1) // BLOCK_ROWS
    of_bin = tl.arange(0, BINS)
    first = tl.sum(tl.where(of_bin < expert, each, 0))
    own = tl.sum(tl.where(of_bin == expert, each, 0))
    slots = pair_of_slot + first.to(tl.int64) * BLOCK_ROWS
    placed = 0
    for start in range(0, pairs, BLOCK_PAIRS):
        pair = start + lane
        hit = tl.load(ids + pair, mask=pair < pairs, other=-1) == expert
        rank = placed + tl.cumsum(hit.to(tl.int32), 0) - 1
        tl.store(slots + rank, pair, mask=hit)
        placed += tl.sum(hit.to(tl.int32))
    filler = placed + tl.arange(0, BLOCK_ROWS)
    tl.store(slots + filler, filler * 0 - 1, mask=filler < own * BLOCK_ROWS)
    for start in range(0, own, BINS):
        tl.store(
            expert_of_tile + first + start + of_bin, of_bin * 0 + expert, mask=start + of_bin < own
        )
    if expert == EXPERTS - 1:
        for start in range(first + own, tiles, BINS):
            tl.store(expert_of_tile + start + of_bin, of_bin * 0 - 1, mask=start + of_bin < tiles)


@triton.jit
def gather_pairs(
    x,  # [TERMS * T, width] bytes
    x_scale,  # f32, a row and block
    out,  # [TERMS * slots, width] bytes
    out_scale,  # [slots, blocks] f32
    pair_of_slot,  # [slots] i32: of slots without a pair nothing is written
    expert_of_tile,  # [slots / BLOCK_ROWS] i32: slots of tiles without an expert hold nothing
    num_rows,
    slots,
    width,
    blocks,
    x_stride,
    scale_row,
    scale_block,
    TOP_K: tl.constexpr,
    TERMS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_BLOCKS: tl.constexpr,  # a power of two that is at least `blocks`
):
    """The row of one slot's pair, and its scales."""
    slot = tl.program_id(0)
    if tl.load(expert_of_tile + slot // BLOCK_ROWS) < 0:
        return
    pair = tl.load(pair_of_slot + slot)
    if pair < 0:
        return
    row = (pair // TOP_K).to(tl.int64)
    block = tl.arange(0, BLOCK_BLOCKS)
    factor = tl.load(x_scale + row * scale_row + block * scale_block, mask=block < blocks)
    tl.store(out_scale + slot.to(tl.int64) * blocks + block, factor, mask=block < blocks)
    column = tl.arange(0, BLOCK)
    for term in tl.static_range(TERMS):
        source = x + (row + tl.cast(term * num_rows, tl.int64)) * x_stride
        target = out + (slot.to(tl.int64) + tl.cast(term * slots, tl.int64)) * width
        for start in range(0, width, BLOCK):
            inside = start + column < width
            value = tl.load(source + start + column, mask=inside)
            tl.store(target + start + column, value, mask=inside)


@triton.jit
def combine_pairs(
    of_pair,  # [T * TOP_K, WIDTH]
    ids,  # [T, TOP_K] i32
    weights,  # [T, TOP_K] f32
    out,  # [T, WIDTH]
    real_rows,  # [1] i32: rows behind it are left alone
    width,
    out_stride,
    EXPERTS: tl.constexpr,
    TOP_K: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The weighted sum of a row's pairs in their order; a pair without an expert adds nothing."""
    row = tl.program_id(0)
    if row >= tl.load(real_rows):
        return
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for k in tl.static_range(TOP_K):
        pair = row.to(tl.int64) * TOP_K + k
        expert = tl.load(ids + pair)
        known = (expert >= 0) & (expert < EXPERTS)
        share = tl.load(weights + pair)
        value = tl.load(of_pair + pair * width + column, mask=(column < width) & known, other=0.0)
        total += tl.where(known, share * value.to(tl.float32), 0.0)
    target = out + row.to(tl.int64) * out_stride + column
    tl.store(target, total.to(out.dtype.element_ty), mask=column < width)
