"""Triton kernels of the experts' choice (noaux_tc), of logits and of rows. Know no target."""

from __future__ import annotations

import triton
import triton.language as tl

from lostwax.backends.gpu_kernels.arrival import settled
from lostwax.backends.gpu_kernels.scaled_products import by_rows, product, zeros_of


@triton.jit
def _choice(
    logit, bias, GROUPS: tl.constexpr, SIZE: tl.constexpr, TOP_GROUPS: tl.constexpr,
    TOP_K: tl.constexpr, NORMALISE: tl.constexpr, BLOCK_TOP: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Ids i32 and weights f32 [ROWS, BLOCK_TOP] of f32 logits [ROWS, GROUPS, SIZE].

    Ids by biased score, descending, the lowest index first; weights by unbiased score, not scaled.
    A group counts by its two best.
    """
    EXPERTS: tl.constexpr = GROUPS * SIZE
    group = tl.arange(0, GROUPS)
    expert = group[None, :, None] * SIZE + tl.arange(0, SIZE)[None, None, :]
    score = 1.0 / (1.0 + tl.exp(-logit))
    biased = score + tl.load(bias + expert)
    # NaN equals no largest: a row of it would name no expert, and whoever reads its ids what lies
    # behind the last one. Its weights are NaN still.
    biased = tl.where(biased == biased, biased, float("-inf"))
    if TOP_GROUPS < GROUPS:
        best = tl.max(biased, axis=2)
        strength = best
        if SIZE > 1:
            first = tl.min(tl.where(biased == best[:, :, None], expert, EXPERTS), axis=2)
            rest = tl.where(expert == first[:, :, None], float("-inf"), biased)
            strength = best + tl.max(rest, axis=2)
        before = group[None, None, :] < group[None, :, None]
        ahead = (strength[:, None, :] > strength[:, :, None]) | (
            (strength[:, None, :] == strength[:, :, None]) & before
        )
        place = tl.sum(ahead.to(tl.int32), axis=2)
        biased = tl.where(place[:, :, None] < TOP_GROUPS, biased, float("-inf"))
    score, biased = tl.reshape(score, (ROWS, EXPERTS)), tl.reshape(biased, (ROWS, EXPERTS))
    expert = tl.arange(0, EXPERTS)[None, :]
    rank = tl.arange(0, BLOCK_TOP)[None, :]
    chosen = tl.zeros((ROWS, BLOCK_TOP), tl.int32)
    gates = tl.zeros((ROWS, BLOCK_TOP), tl.float32)
    free = (tl.zeros((ROWS, EXPERTS), tl.int32) + expert) >= 0
    for i in tl.static_range(TOP_K):
        open_scores = tl.where(free, biased, float("-inf"))
        top = tl.max(open_scores, axis=1)
        named = tl.where(free & (open_scores == top[:, None]), expert, EXPERTS)
        winner = tl.min(named, axis=1)
        won = expert == winner[:, None]
        weight = tl.sum(tl.where(won, score, 0.0), axis=1)
        free = free & (expert != winner[:, None])
        chosen = tl.where(rank == i, winner[:, None], chosen)
        gates = tl.where(rank == i, weight[:, None], gates)
    if NORMALISE:
        gates = gates / (tl.sum(gates, axis=1) + 1e-20)[:, None]
    return chosen, gates


@triton.jit
def _store_choice(
    chosen, gates, row, real, positions, ids, weights, scale,
    TOP_K: tl.constexpr, BLOCK_TOP: tl.constexpr,
):  # fmt: skip
    """Choices of rows [ROWS]; rows without a token get ids -1 and weights 0, of those behind the
    real ones ids alone."""
    rank = tl.arange(0, BLOCK_TOP)[None, :]
    kept = (row < real)[:, None] & (rank < TOP_K)
    is_token = (tl.load(positions + row, mask=row < real, other=-1) >= 0)[:, None]
    at = row.to(tl.int64)[:, None] * TOP_K + rank
    tl.store(ids + at, tl.where(is_token, chosen, -1), mask=kept)
    tl.store(weights + at, tl.where(is_token, gates * scale, 0.0), mask=kept)


@triton.jit
def _store_none(row, num_rows, ids, TOP_K: tl.constexpr, BLOCK_TOP: tl.constexpr):
    """Ids -1 of rows [ROWS] below `num_rows`."""
    rank = tl.arange(0, BLOCK_TOP)[None, :]
    none = (row[:, None] * 0 + rank * 0 - 1).to(tl.int32)
    kept = (row < num_rows)[:, None] & (rank < TOP_K)
    tl.store(ids + row.to(tl.int64)[:, None] * TOP_K + rank, none, mask=kept)


@triton.jit
def route(
    logits,  # [T, GROUPS * SIZE] f32
    bias,  # [GROUPS * SIZE] f32
    positions,  # [T]
    ids,  # [T, TOP_K] i32
    weights,  # [T, TOP_K] f32
    real_rows,  # [1] i32: rows behind it get ids -1, and nothing else
    scale,
    GROUPS: tl.constexpr,
    SIZE: tl.constexpr,
    TOP_GROUPS: tl.constexpr,
    TOP_K: tl.constexpr,
    NORMALISE: tl.constexpr,
    BLOCK_TOP: tl.constexpr,
):
    """The choice of one row. GROUPS and SIZE are powers of two."""
    row = tl.program_id(0) + tl.arange(0, 1)
    real = tl.load(real_rows)
    if tl.program_id(0) >= real:
        _store_none(row, tl.program_id(0) + 1, ids, TOP_K, BLOCK_TOP)
        return
    expert = tl.arange(0, GROUPS)[:, None] * SIZE + tl.arange(0, SIZE)[None, :]
    logit = tl.load(logits + row.to(tl.int64)[:, None, None] * GROUPS * SIZE + expert[None])
    chosen, gates = _choice(logit, bias, GROUPS, SIZE, TOP_GROUPS, TOP_K, NORMALISE, BLOCK_TOP, 1)
    _store_choice(chosen, gates, row, real, positions, ids, weights, scale, TOP_K, BLOCK_TOP)


@triton.jit
def route_rows(
    x,  # [T, DIM] bf16
    weight,  # [GROUPS * SIZE, DIM] bf16
    bias,  # [GROUPS * SIZE] f32
    positions,  # [T]
    ids,  # [T, TOP_K] i32
    weights,  # [T, TOP_K] f32
    partial,  # [tiles of rows, SPLITS, BLOCK_ROWS, GROUPS * SIZE] f32
    arrived,  # [tiles of rows] i32, zero
    real_rows,  # [1] i32: rows behind it get ids -1, and nothing else
    num_rows,
    x_stride,
    scale,
    DIM: tl.constexpr,
    GROUPS: tl.constexpr,
    SIZE: tl.constexpr,
    TOP_GROUPS: tl.constexpr,
    TOP_K: tl.constexpr,
    NORMALISE: tl.constexpr,
    BLOCK_TOP: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_SIDE: tl.constexpr,
    BLOCK_EXPERTS: tl.constexpr,
    BLOCK_K: tl.constexpr,
    SPLITS: tl.constexpr,
    SPLIT_BLOCKS: tl.constexpr,
    WIDE_DOT: tl.constexpr,
    SETTLE: tl.constexpr = 0,
):
    """The choice of BLOCK_ROWS rows with the logits that it needs, x weight^T.

    A program multiplies BLOCK_EXPERTS experts over one split of DIM; the one of a tile of rows that
    comes last adds all splits in their order, and chooses. `arrived` counts them, and is left zero.
    The matrix units' smallest side is BLOCK_SIDE.
    """
    EXPERTS: tl.constexpr = GROUPS * SIZE
    blocks: tl.constexpr = (EXPERTS + BLOCK_EXPERTS - 1) // BLOCK_EXPERTS
    tile, block, split = tl.program_id(0) // blocks, tl.program_id(0) % blocks, tl.program_id(1)
    real = tl.load(real_rows)
    first_row = tile * BLOCK_ROWS
    if first_row >= real:
        if (block == 0) & (split == 0):
            behind = first_row + tl.arange(0, BLOCK_ROWS)
            _store_none(behind, num_rows, ids, TOP_K, BLOCK_TOP)
        return
    lane = tl.arange(0, BLOCK_SIDE)
    there = (lane < BLOCK_ROWS) & (first_row + lane < real)
    row = first_row + lane
    expert = block * BLOCK_EXPERTS + tl.arange(0, BLOCK_EXPERTS)
    total = zeros_of(BLOCK_SIDE, BLOCK_EXPERTS, 1)
    for step in range(split * SPLIT_BLOCKS, (split + 1) * SPLIT_BLOCKS):
        k = step * BLOCK_K + tl.arange(0, BLOCK_K)
        w_at = weight + expert.to(tl.int64)[:, None] * DIM + k[None, :]
        w = tl.load(w_at, mask=(expert < EXPERTS)[:, None] & (k < DIM)[None, :], other=0.0)
        a_at = x + row.to(tl.int64)[:, None] * x_stride + k[None, :]
        a = tl.load(a_at, mask=there[:, None] & (k < DIM)[None, :], other=0.0)
        total = product(a, w, total, 1, WIDE_DOT)
    plane: tl.constexpr = BLOCK_ROWS * EXPERTS
    sums = partial + tile.to(tl.int64) * SPLITS * plane
    at = sums + split.to(tl.int64) * plane + lane[:, None] * EXPERTS + expert[None, :]
    tl.store(at, by_rows(total, 1), mask=there[:, None] & (expert < EXPERTS)[None, :])
    settled(SETTLE)  # every thread's part is written before this program counts itself
    if tl.atomic_add(arrived + tile, 1, sem="acq_rel") == SPLITS * blocks - 1:
        tl.store(arrived + tile, 0)
        own = first_row + tl.arange(0, BLOCK_ROWS)
        group = tl.arange(0, GROUPS)[None, :, None] * SIZE
        each = tl.arange(0, BLOCK_ROWS)[:, None, None] * EXPERTS + group
        place = sums + each + tl.arange(0, SIZE)[None, None, :]
        inside = (own < real)[:, None, None]
        logit = tl.zeros((BLOCK_ROWS, GROUPS, SIZE), tl.float32)
        for _ in tl.static_range(SPLITS):  # unrolled: the reads do not wait for each other
            logit += tl.load(place, mask=inside, other=0.0, cache_modifier=".cg")
            place += plane
        chosen, gates = _choice(
            logit, bias, GROUPS, SIZE, TOP_GROUPS, TOP_K, NORMALISE, BLOCK_TOP, BLOCK_ROWS
        )
        _store_choice(chosen, gates, own, real, positions, ids, weights, scale, TOP_K, BLOCK_TOP)
        if first_row + BLOCK_ROWS > real:
            behind = tl.where(own < real, num_rows, own)
            _store_none(behind, num_rows, ids, TOP_K, BLOCK_TOP)
