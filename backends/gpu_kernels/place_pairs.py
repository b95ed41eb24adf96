"""Triton kernels that sort (row, expert) pairs by expert, bring their rows there, and sum what
these give. Know no target.

A pair is a row with one of its choices; with SHARED each row has one pair more, its last, with the
shared expert, whose number is EXPERTS. Slots are places of pairs: each expert's stand together,
filled up to whole tiles. No atomics: pairs keep their order, and a row's sum has a fixed one.
"""

from __future__ import annotations

import triton
import triton.language as tl

from lostwax.backends.gpu_kernels.conversions import to_float
from lostwax.backends.gpu_kernels.fp8_terms import quantise_blocks


@triton.jit
def _numbered(choice, TOP_K: tl.constexpr, SHARED: tl.constexpr):
    """The pair of a choice, by its place in ids."""
    return choice + choice // TOP_K if SHARED else choice


@triton.jit
def _of_shared(real, first_row, TOP_K: tl.constexpr, BLOCK: tl.constexpr):
    """The shared expert's pairs of BLOCK rows, -1 behind the real ones."""
    row = first_row + tl.arange(0, BLOCK)
    return tl.where(row < real, row * (TOP_K + 1) + TOP_K, -1)


@triton.jit
def own_pairs(
    ids,  # [T, TOP_K] i32, -1 for no expert
    real_rows,  # [1] i32: pairs of rows behind it have no slot
    tile,
    EXPERTS: tl.constexpr,
    TOP_K: tl.constexpr,
    SHARED: tl.constexpr,
    BINS: tl.constexpr,  # a power of two that is at least EXPERTS
    BLOCK_ROWS: tl.constexpr,
    PAIRS: tl.constexpr,  # a power of two that is at least T * TOP_K
):
    """Expert and pairs [BLOCK_ROWS] of one tile, as `place_pairs` gives them, -1 for none."""
    real = tl.load(real_rows)
    choice = tl.arange(0, PAIRS)
    chosen = tl.load(ids + choice, mask=choice < real * TOP_K, other=-1)
    known = (chosen >= 0) & (chosen < EXPERTS)
    counts = tl.histogram(tl.where(known, chosen, 0), BINS, mask=known)
    each = (counts + BLOCK_ROWS - 1) // BLOCK_ROWS
    routed = tl.sum(each)
    of_bin = tl.arange(0, BINS)
    expert = tl.sum((tl.cumsum(each, 0) <= tile).to(tl.int32))
    first = tl.sum(tl.where(of_bin < expert, each, 0))
    hit = known & (chosen == expert)
    rank = tl.cumsum(hit.to(tl.int32), 0) - 1
    wanted = (tile - first) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    own = hit[None, :] & (rank[None, :] == wanted[:, None])
    pair = tl.sum(tl.where(own, _numbered(choice, TOP_K, SHARED)[None, :] + 1, 0), axis=1) - 1
    expert = tl.where(tile < routed, expert, -1)
    if SHARED:
        first_row = (tile - routed) * BLOCK_ROWS
        is_shared = (first_row >= 0) & (first_row < real)
        pair = tl.where(is_shared, _of_shared(real, first_row, TOP_K, BLOCK_ROWS), pair)
        expert = tl.where(is_shared, EXPERTS, expert)
    return expert, pair


@triton.jit
def place_expert(
    expert, ids, pair_of_slot, expert_of_tile, real, tiles,
    EXPERTS: tl.constexpr, TOP_K: tl.constexpr, SHARED: tl.constexpr, BINS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK_PAIRS: tl.constexpr,
):  # fmt: skip
    """Slots and tiles of one expert, which counts the pairs of those before it by itself;
    arguments as `place_pairs` has them."""
    pairs = real.to(tl.int64) * TOP_K
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
    if expert == EXPERTS:  # the shared one
        own = (real + BLOCK_ROWS - 1) // BLOCK_ROWS
        for first_slot in range(0, own * BLOCK_ROWS, BLOCK_PAIRS):
            pair = _of_shared(real, first_slot, TOP_K, BLOCK_PAIRS)
            slot = first_slot + lane
            tl.store(slots + slot, pair, mask=slot < own * BLOCK_ROWS)
        placed = own * BLOCK_ROWS
    else:
        for start in range(0, pairs, BLOCK_PAIRS):
            choice = start + lane
            hit = tl.load(ids + choice, mask=choice < pairs, other=-1) == expert
            rank = placed + tl.cumsum(hit.to(tl.int32), 0) - 1
            tl.store(slots + rank, _numbered(choice, TOP_K, SHARED), mask=hit)
            placed += tl.sum(hit.to(tl.int32))
    filler = placed + tl.arange(0, BLOCK_ROWS)
    tl.store(slots + filler, filler * 0 - 1, mask=filler < own * BLOCK_ROWS)
    for start in range(0, own, BINS):
        tl.store(
            expert_of_tile + first + start + of_bin, of_bin * 0 + expert, mask=start + of_bin < own
        )
    if expert == EXPERTS + SHARED - 1:
        for start in range(first + own, tiles, BINS):
            tl.store(expert_of_tile + start + of_bin, of_bin * 0 - 1, mask=start + of_bin < tiles)


@triton.jit
def place_pairs(
    ids,  # [T, TOP_K] i32, -1 for no expert
    pair_of_slot,  # [tiles * BLOCK_ROWS] i32: -1 in filled-up slots
    expert_of_tile,  # [tiles] i32: -1 behind the last expert's
    real_rows,  # [1] i32: pairs of rows behind it have no slot
    tiles,
    EXPERTS: tl.constexpr,
    TOP_K: tl.constexpr,
    SHARED: tl.constexpr,
    BINS: tl.constexpr,  # a power of two that is at least EXPERTS
    BLOCK_ROWS: tl.constexpr,
    BLOCK_PAIRS: tl.constexpr,
):
    """One expert's slots and tiles."""
    place_expert(
        tl.program_id(0), ids, pair_of_slot, expert_of_tile, tl.load(real_rows), tiles, EXPERTS,
        TOP_K, SHARED, BINS, BLOCK_ROWS, BLOCK_PAIRS,
    )  # fmt: skip


@triton.jit
def place_and_quantise(
    ids,  # as `place_pairs` has them
    pair_of_slot,
    expert_of_tile,
    x,  # as `fp8_terms.quantise_rows` has them
    terms,
    scale,
    real_rows,  # [1] i32: rows behind it are left alone
    tiles,
    num_rows,
    width,
    x_stride,
    scale_row,
    scale_block,
    EXPERTS: tl.constexpr,
    TOP_K: tl.constexpr,
    SHARED: tl.constexpr,
    BINS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_PAIRS: tl.constexpr,
    BLOCK_SCALE: tl.constexpr,
    BLOCKS: tl.constexpr,
    FNUZ: tl.constexpr,
    ROUND_FIRST: tl.constexpr,
):
    """One expert's slots and tiles, or, in programs behind those of the experts, two terms of
    BLOCKS blocks of a row: neither waits for the other."""
    program = tl.program_id(0)
    real = tl.load(real_rows)
    if program < EXPERTS + SHARED:
        place_expert(
            program, ids, pair_of_slot, expert_of_tile, real, tiles, EXPERTS, TOP_K, SHARED, BINS,
            BLOCK_ROWS, BLOCK_PAIRS,
        )  # fmt: skip
    else:
        parts = (width + BLOCK_SCALE * BLOCKS - 1) // (BLOCK_SCALE * BLOCKS)
        part = program - (EXPERTS + SHARED)
        if part // parts < real:
            quantise_blocks(
                part // parts, part % parts * BLOCKS, x, terms, scale, num_rows, width, x_stride,
                scale_row, scale_block, BLOCK_SCALE, BLOCKS, 2, 1, FNUZ, ROUND_FIRST,
            )  # fmt: skip


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
        source = x + (row + term * tl.cast(num_rows, tl.int64)) * x_stride
        target = out + (slot.to(tl.int64) + term * tl.cast(slots, tl.int64)) * width
        for start in range(0, width, BLOCK):
            inside = start + column < width
            value = tl.load(source + start + column, mask=inside)
            tl.store(target + start + column, value, mask=inside)


@triton.jit
def combine_pairs(
    of_pair,  # [T * (TOP_K + SHARED), WIDTH]
    ids,  # [T, TOP_K] i32
    weights,  # [T, TOP_K] f32
    out,  # [T, WIDTH]
    real_rows,  # [1] i32: rows behind it are left alone
    width,
    out_stride,
    EXPERTS: tl.constexpr,
    TOP_K: tl.constexpr,
    SHARED: tl.constexpr,
    BLOCK: tl.constexpr,
    ROUND_FIRST: tl.constexpr,
):
    """The weighted sum of a row's pairs in their order; a pair without an expert adds nothing, the
    shared one's comes last and is added as it is."""
    row = tl.program_id(0)
    if row >= tl.load(real_rows):
        return
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    first = row.to(tl.int64) * (TOP_K + SHARED)
    for k in tl.static_range(TOP_K):
        expert = tl.load(ids + row.to(tl.int64) * TOP_K + k)
        known = (expert >= 0) & (expert < EXPERTS)
        share = tl.load(weights + row.to(tl.int64) * TOP_K + k)
        there = of_pair + (first + k) * width + column
        value = tl.load(there, mask=(column < width) & known, other=0.0)
        total += tl.where(known, share * value.to(tl.float32), 0.0)
    if SHARED:
        there = of_pair + (first + TOP_K) * width + column
        total += tl.load(there, mask=column < width, other=0.0).to(tl.float32)
    target = out + row.to(tl.int64) * out_stride + column
    tl.store(target, to_float(total, out.dtype.element_ty, ROUND_FIRST), mask=column < width)
