"""Triton kernels that sort (row, expert) pairs by expert, and sum what these give. Know no target.

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
