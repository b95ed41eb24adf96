"""Picks one row's id from its nucleus, which is never made. Knows no op and no target.

The pick from all allowed ids is the pick from the nucleus wherever it lies in it, and whether it
does is three numbers: how many ids stand before it in the nucleus's order, largest logit first,
their mass, and its own. Where it does not, the row's other ids are tried, the best first: those
behind one that a share of the mass refuses are refused, too. With a top_p of 0.95 the first try
holds 19 times of 20; the expected number of tries is 1 + ln(1 / top_p) at most.

Ids are tried out of the row's list, all in registers, and where that was too short for them by
walking the row part after part.
"""

from __future__ import annotations

import triton
import triton.language as tl

from lostwax.backends.gpu_kernels.first_ids import floor_of, key_of
from lostwax.backends.gpu_kernels.mask import allowed_logits
from lostwax.backends.gpu_kernels.nucleus import (
    last_ranked,
    mass_of,
    ratio_of,
    wanted_of,
)
from lostwax.backends.gpu_kernels.pick import first_of_largest, gumbel


@triton.jit
def score_of(x, heat, seeds, counters, row, index):
    """What the largest of is picked: the logit, at a temperature divided by it and with noise."""
    score = x.to(tl.float64)
    if heat > 0:
        seed = tl.load(seeds + row).to(tl.uint32, bitcast=True)
        counter = tl.load(counters + row).to(tl.uint32, bitcast=True)
        score = score / heat.to(tl.float64) + gumbel(seed, counter, index.to(tl.uint32))
    return score


@triton.jit
def is_before(x, index, logit, number):
    """Whether ids stand before id `number` of that logit in the nucleus's order."""
    return (x > logit) | ((x == logit) & (index < number))


@triton.jit
def second_of(
    own, score, named, runner_ups, runner_up_ids, picked, parts, BLOCK_PARTS: tl.constexpr
):
    """The best id of those before the picked one, -1 where it cannot be told, from the best id of
    every part and the runner-up, the part's best before that: where a part's best comes behind the
    picked id, its best before it is not known, only that it is worse than the part's best."""
    part = tl.arange(0, BLOCK_PARTS)
    there = part < parts
    none = float("-inf")
    logit = tl.load(own + named, mask=there, other=none, cache_modifier=".cg")
    lower = tl.load(runner_ups + part, mask=there, other=none, cache_modifier=".cg")
    lower_named = tl.load(runner_up_ids + part, mask=there, other=0, cache_modifier=".cg")
    is_own = named == picked
    before = is_before(logit, named, tl.max(tl.where(is_own, logit, none), axis=0), picked)
    best = tl.where(before, score, tl.where(is_own, lower, none))
    index = tl.where(before, named, tl.where(is_own, lower_named, 2147483647))
    largest, second = first_of_largest(best, index)
    bound = tl.max(tl.where(before | is_own, none, score), axis=0)
    return tl.where(largest > bound, second, -1)


@triton.jit
def _pick_listed(
    own, listed, num_listed, top, total, heat, count, share, least, seeds, counters, row,
    LIST: tl.constexpr, MASS_BITS: tl.constexpr,
):  # fmt: skip
    """The pick from a row's list, which holds every id that may be."""
    at = tl.arange(0, LIST)
    inside = at < num_listed
    index = tl.load(listed + at, mask=inside, other=0, cache_modifier=".cg")
    x = tl.load(own + index, mask=inside, other=float("-inf"))
    mass = tl.where(inside, mass_of(x, top, heat, MASS_BITS), 0)
    if count > 0:
        key = tl.where(inside, key_of(x, index), -1)
        inside = inside & (key >= floor_of(key, count, count))
        mass = tl.where(inside, mass, 0)
        total = tl.sum(mass, axis=0)
    wanted = tl.where(share < 1, wanted_of(share, total), float("inf"))
    score = score_of(x, heat, seeds, counters, row, index)
    inside = inside & (ratio_of(x, top, heat) >= least.to(tl.float64))
    chosen = total.to(tl.int32) * 0
    is_open = wanted > 0
    while is_open:
        tried = tl.where(inside, score, float("-inf"))
        chosen = first_of_largest(tried, tl.where(inside, index, 2147483647))[1]
        before = is_before(x, index, tl.load(own + chosen), chosen)
        is_open = tl.sum(tl.where(before, mass, 0), axis=0).to(tl.float64) >= wanted
        inside = inside & before
    return chosen


@triton.jit
def _best_before(
    own, words, has_mask, score, named, logit, number, top, heat, least, seeds, counters, row,
    WIDTH: tl.constexpr, BLOCK: tl.constexpr, BLOCK_PARTS: tl.constexpr,
):  # fmt: skip
    """The best id of those before id `number` of that logit that are likely enough; with it the
    best of every part, made lower where the part was looked at.

    No part has a better id than its best one: only parts whose best comes first and is not among
    the ids are looked at. Behind an id that was picked from all these are few.
    """
    part = tl.arange(0, BLOCK_PARTS)
    is_open = has_mask | (has_mask == 0)
    chosen = number
    while is_open:
        chosen = first_of_largest(score, named)[1]
        own_logit = tl.load(own + chosen)
        is_likely = ratio_of(own_logit, top, heat) >= least.to(tl.float64)
        is_open = (is_before(own_logit, chosen, logit, number) & is_likely) == 0
        if is_open:
            looked_at = chosen // BLOCK
            index = looked_at * BLOCK + tl.arange(0, BLOCK)
            x = allowed_logits(own, words, has_mask, index, WIDTH)
            inside = is_before(x, index, logit, number)
            inside = inside & (ratio_of(x, top, heat) >= least.to(tl.float64))
            tried = score_of(x, heat, seeds, counters, row, index)
            largest, first = first_of_largest(
                tl.where(inside, tried, float("-inf")), tl.where(inside, index, 2147483647)
            )
            score = tl.where(part == looked_at, largest, score)
            named = tl.where(part == looked_at, first, named)
    return chosen, score, named


@triton.jit
def _mass_before(
    own,
    words,
    has_mask,
    logit,
    number,
    top,
    heat,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    MASS_BITS: tl.constexpr,
):
    """The mass of the ids before id `number` of that logit."""
    total = tl.zeros((BLOCK,), tl.int64)
    for first in range(0, WIDTH, BLOCK):
        index = first + tl.arange(0, BLOCK)
        x = allowed_logits(own, words, has_mask, index, WIDTH)
        mass = mass_of(x, top, heat, MASS_BITS)
        total += tl.where(is_before(x, index, logit, number), mass, 0)
    return tl.sum(total, axis=0)


@triton.jit
def _pick_walking(
    own, words, has_mask, chosen, top, total, heat, count, share, least, seeds, counters, row,
    scores, best, tops, parts,
    WIDTH: tl.constexpr, BLOCK: tl.constexpr, BLOCK_PARTS: tl.constexpr, MASS_BITS: tl.constexpr,
):  # fmt: skip
    """The pick from a row whose list is too short; `chosen`, which is outside, is its best id."""
    part = tl.arange(0, BLOCK_PARTS)
    score = tl.load(scores + part, mask=part < parts, other=float("-inf"))
    named = tl.load(best + part, mask=part < parts, other=2147483647)
    number = chosen
    logit = tl.load(own + chosen)
    if count > 0:
        last = last_ranked(
            own, words, has_mask, tops, tl.minimum(count, WIDTH), parts, WIDTH, BLOCK, BLOCK_PARTS
        )
        logit = allowed_logits(own, words, has_mask, last, WIDTH)
        number = last + 1
        if share < 1:
            total = _mass_before(
                own, words, has_mask, logit, number, top, heat, WIDTH, BLOCK, MASS_BITS
            )
    wanted = tl.where(share < 1, wanted_of(share, total), float("inf"))
    is_open = wanted > 0
    while is_open:
        number, score, named = _best_before(
            own, words, has_mask, score, named, logit, number, top, heat, least, seeds, counters,
            row, WIDTH, BLOCK, BLOCK_PARTS,
        )  # fmt: skip
        logit = tl.load(own + number)
        is_open = share < 1
        if is_open:
            before = _mass_before(
                own, words, has_mask, logit, number, top, heat, WIDTH, BLOCK, MASS_BITS
            )
            is_open = before.to(tl.float64) >= wanted
    return number


@triton.jit
def nucleus_pick(
    own,  # [WIDTH] f32: the row's logits
    words,
    has_mask,
    chosen,  # the pick from all allowed ids
    top,  # the largest allowed logit
    total,  # mass of all allowed ids
    before,  # mass of those before the chosen
    second,  # the pick from those, -1: not known
    before_second,  # mass of those before that
    num_before,  # number of those
    heat,
    count,
    share,
    least,
    seeds,
    counters,
    row,
    listed,  # [LIST] i32
    num_listed,
    scores,  # [parts] f64: the best score of each part
    best,  # [parts] i32: whose it is
    tops,  # [parts] f32
    parts,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_PARTS: tl.constexpr,
    LIST: tl.constexpr,
    MASS_BITS: tl.constexpr,
):
    """The id that one row's nucleus gives. The list has the allowed ids from a floor on where there
    is a top_k; else those likely enough, under a top_p none behind the chosen."""
    wanted = tl.where(share < 1, wanted_of(share, total), float("inf"))
    ratio = ratio_of(tl.load(own + chosen), top, heat)
    fits = (before.to(tl.float64) < wanted) & (ratio >= least.to(tl.float64))
    fits = fits & ((count <= 0) | ((num_before < count) & (share >= 1)))
    if fits == 0:
        if (second >= 0) & (before_second.to(tl.float64) < wanted):
            chosen = second
        elif num_listed <= LIST // 2:  # most lists: half of the work
            chosen = _pick_listed(
                own, listed, num_listed, top, total, heat, count, share, least, seeds, counters,
                row, LIST // 2, MASS_BITS,
            )  # fmt: skip
        elif num_listed <= LIST:
            chosen = _pick_listed(
                own, listed, num_listed, top, total, heat, count, share, least, seeds, counters,
                row, LIST, MASS_BITS,
            )  # fmt: skip
        else:
            chosen = _pick_walking(
                own, words, has_mask, chosen, top, total, heat, count, share, least, seeds,
                counters, row, scores, best, tops, parts, WIDTH, BLOCK, BLOCK_PARTS, MASS_BITS,
            )  # fmt: skip
    return chosen
