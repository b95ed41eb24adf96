"""Triton kernel of the experts' choice (noaux_tc), one row a program. Knows no target."""

from __future__ import annotations

import triton
import triton.language as tl


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
    """Ids by biased score, descending, the lowest index first; weights by unbiased score.

    A group counts by its two best. GROUPS and SIZE are powers of two.
    """
    row = tl.program_id(0).to(tl.int64)
    rank = tl.arange(0, BLOCK_TOP)
    kept = rank < TOP_K
    if row >= tl.load(real_rows):
        tl.store(ids + row * TOP_K + rank, tl.full((BLOCK_TOP,), -1, tl.int32), mask=kept)
        return
    group = tl.arange(0, GROUPS)
    expert = group[:, None] * SIZE + tl.arange(0, SIZE)[None, :]
    score = 1.0 / (1.0 + tl.exp(-tl.load(logits + row * GROUPS * SIZE + expert)))
    biased = score + tl.load(bias + expert)
    if TOP_GROUPS < GROUPS:
        best = tl.max(biased, axis=1)
        strength = best
        if SIZE > 1:
            first = tl.min(tl.where(biased == best[:, None], expert, GROUPS * SIZE), axis=1)
            rest = tl.where(expert == first[:, None], float("-inf"), biased)
            strength = best + tl.max(rest, axis=1)
        ahead = (strength[None, :] > strength[:, None]) | (
            (strength[None, :] == strength[:, None]) & (group[None, :] < group[:, None])
        )
        place = tl.sum(ahead.to(tl.int32), axis=1)
        biased = tl.where(place[:, None] < TOP_GROUPS, biased, float("-inf"))
    chosen = tl.zeros((BLOCK_TOP,), tl.int32)
    gates = tl.zeros((BLOCK_TOP,), tl.float32)
    free = expert >= 0
    for i in tl.static_range(TOP_K):
        open_scores = tl.where(free, biased, float("-inf"))
        top = tl.max(tl.max(open_scores, axis=1), axis=0)
        named = tl.where(free & (open_scores == top), expert, GROUPS * SIZE)
        winner = tl.min(tl.min(named, axis=1), axis=0)
        won = expert == winner
        weight = tl.sum(tl.sum(tl.where(won, score, 0.0), axis=1), axis=0)
        free = free & (expert != winner)
        chosen = tl.where(rank == i, winner, chosen)
        gates = tl.where(rank == i, weight, gates)
    if NORMALISE:
        gates = gates / (tl.sum(gates, axis=0) + 1e-20)
    is_real = tl.load(positions + row) >= 0
    tl.store(ids + row * TOP_K + rank, tl.where(is_real, chosen, -1), mask=kept)
    tl.store(weights + row * TOP_K + rank, tl.where(is_real, gates * scale, 0.0), mask=kept)
