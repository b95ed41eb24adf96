"""Triton kernels of scores: log-probabilities of targets, and a row's likeliest ids with theirs.

The first launch sums a row's parts; its last program of a row ends the target and takes the floor
of the first ids. In the second every part lists its ids from there on, and the last program of a
row puts them in order, or walks the row where they are too many. Log-probabilities have the bits of
`pick.py`. Know no target.
"""

from __future__ import annotations

import triton
import triton.language as tl

from lostwax.backends.gpu_kernels.arrival import is_last, settled
from lostwax.backends.gpu_kernels.first_ids import (
    append,
    floor_of,
    floor_of_groups,
    key_of,
    store_groups,
)
from lostwax.backends.gpu_kernels.row_parts import log_of_parts, logprob_under, sum_of_exp, top_of


@triton.jit
def score_split(
    logits,  # [R, WIDTH] f32
    targets,  # [R] i32, -1: none
    tops,  # [R, parts] f32
    sums,  # [R, parts] i64
    groups,  # [R, parts * OF_PART] f32
    arrived,  # [R] i32, zero
    wholes,  # [R, 2] f64: the largest logit, and the logarithm of the sum of exponentials below it
    floors,  # [R] f32
    progress,  # [R, 2] i32: programs of the second launch that have arrived, ids that they listed
    target_logprobs,  # [R] f32
    real_rows,  # [1] i32: rows behind it are left alone
    logits_stride,
    parts,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_PARTS: tl.constexpr,
    OF_PART: tl.constexpr,
    MASS_BITS: tl.constexpr,
    TOP: tl.constexpr,
    SETTLE: tl.constexpr = 0,
):
    """One part of one row; the last writes the log-probability of the row's target, 0 where it has
    none."""
    row = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    real = tl.load(real_rows)
    target = tl.load(targets + row)
    if row >= real:
        return
    own = logits + row * logits_stride
    index = part * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(own + index, mask=index < WIDTH, other=float("-inf"))
    top = top_of(x)
    at = row * parts + part
    tl.store(tops + at, top)
    tl.store(sums + at, sum_of_exp(x, top, MASS_BITS))
    store_groups(x, groups + at * OF_PART, BLOCK, OF_PART)
    if is_last(arrived + row, parts, SETTLE):
        each = tl.arange(0, BLOCK_PARTS)
        there, of_part = each < parts, row * parts + each
        part_tops = tl.load(tops + of_part, mask=there, other=float("-inf"), cache_modifier=".cg")
        part_sums = tl.load(sums + of_part, mask=there, other=0, cache_modifier=".cg")
        wide, log = log_of_parts(part_tops, part_sums, MASS_BITS)
        logit = tl.load(own + target, mask=target >= 0, other=0.0)
        logprob = logprob_under(logit, wide, log)
        tl.store(target_logprobs + row, tl.where(target >= 0, logprob, 0.0))
        tl.store(wholes + 2 * row, wide)
        tl.store(wholes + 2 * row + 1, log)
        floor = floor_of_groups(
            groups + row * parts * OF_PART, TOP, parts * OF_PART, BLOCK_PARTS * OF_PART
        )
        tl.store(floors + row, floor)
        tl.store(progress + 2 * row, 0)
        tl.store(progress + 2 * row + 1, 0)


@triton.jit
def _first_walked(own, parts, count, WIDTH: tl.constexpr, BLOCK: tl.constexpr, SLOTS: tl.constexpr):
    """The ids of the row's first `count`, in order, in the first of SLOTS: each the best behind the
    one before it."""
    slot = tl.arange(0, SLOTS)
    found = tl.zeros((SLOTS,), tl.int32)
    behind = tl.cast(1 << 62, tl.int64)
    for number in range(0, count):
        best = tl.full((BLOCK,), -1, tl.int64)
        for part in range(0, parts):
            index = part * BLOCK + tl.arange(0, BLOCK)
            key = key_of(tl.load(own + index, mask=index < WIDTH, other=0.0), index)
            best = tl.maximum(best, tl.where((index < WIDTH) & (key < behind), key, -1))
        behind = tl.max(best, axis=0)
        found = tl.where(slot == number, 262143 - (behind & 262143).to(tl.int32), found)
    return found


@triton.jit
def score_rank(
    logits,
    wholes,
    floors,
    progress,
    listed,  # [R, LIST] i32: the row's first ids and some more, in any order
    top_ids,  # [R, TOP] i32
    top_logprobs,  # [R, TOP] f32
    real_rows,
    logits_stride,
    parts,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    LIST: tl.constexpr,
    TOP: tl.constexpr,
    SLOTS: tl.constexpr,  # TOP or the next power of two
    SETTLE: tl.constexpr = 0,
):
    """One part of one row; the last writes the row's first TOP ids, the largest logit first."""
    row = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    real = tl.load(real_rows)
    floor = tl.load(floors + row)
    if row >= real:
        return
    own = logits + row * logits_stride
    own_list = listed + row * LIST
    index = part * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(own + index, mask=index < WIDTH, other=float("-inf"))
    known = tl.where(x == x, x, float("-inf"))  # where no floor is above, all ids are listed
    is_first = (index < WIDTH) & (known >= floor)
    append(own_list, progress + 2 * row + 1, index, is_first, LIST)
    if is_last(progress + 2 * row, parts, SETTLE):
        num_listed = tl.load(progress + 2 * row + 1, cache_modifier=".cg")
        slot = tl.arange(0, SLOTS)
        if num_listed <= LIST:
            at = tl.arange(0, LIST)
            inside = at < num_listed
            named = tl.load(own_list + at, mask=inside, other=0, cache_modifier=".cg")
            key = tl.where(inside, key_of(tl.load(own + named, mask=inside, other=0.0), named), -1)
            kept = (key >= floor_of(key, TOP, TOP)) & inside
            place = tl.cumsum(kept.to(tl.int32), axis=0) - 1
            settled(SETTLE)  # the list has been read
            tl.store(own_list + place, named, mask=kept)
            settled(SETTLE)
            first = tl.load(own_list + slot, mask=slot < TOP, other=0, cache_modifier=".cg")
            logit = tl.load(own + first, mask=slot < TOP, other=0.0)
            key = tl.where(slot < TOP, key_of(logit, first), -1)
            rank = tl.sum((key[None, :] > key[:, None]).to(tl.int32), axis=1)
        else:
            first = _first_walked(own, parts, TOP, WIDTH, BLOCK, SLOTS)
            logit = tl.load(own + first)
            rank = slot
        logprob = logprob_under(logit, tl.load(wholes + 2 * row), tl.load(wholes + 2 * row + 1))
        tl.store(top_ids + row * TOP + rank, first, mask=slot < TOP)
        tl.store(top_logprobs + row * TOP + rank, logprob, mask=slot < TOP)
