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
    is_up_to,
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
    own,
    words,
    has_mask,
    logit,
    number,
    heat,
    seeds,
    counters,
    row,
    parts,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The best id of those before id `number` of that logit."""
    largest = tl.full((BLOCK,), float("-inf"), tl.float64)
    first = tl.full((BLOCK,), 2147483647, tl.int32)
    for part in range(0, parts):
        index = part * BLOCK + tl.arange(0, BLOCK)
        x = allowed_logits(own, words, has_mask, index, WIDTH)
        before = is_before(x, index, logit, number)
        if tl.max(before.to(tl.int32), axis=0) > 0:
            score = score_of(x, heat, seeds, counters, row, index)
            is_better = before & ((score > largest) | (first == 2147483647))
            largest = tl.where(is_better, score, largest)
            first = tl.where(is_better, index, first)
    return first_of_largest(largest, first)[1]


@triton.jit
def _mass_before(
    own,
    words,
    has_mask,
    logit,
    number,
    top,
    heat,
    parts,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    MASS_BITS: tl.constexpr,
):
    """The mass of the ids before id `number` of that logit."""
    total = tl.zeros((BLOCK,), tl.int64)
    for part in range(0, parts):
        index = part * BLOCK + tl.arange(0, BLOCK)
        x = allowed_logits(own, words, has_mask, index, WIDTH)
        mass = mass_of(x, top, heat, MASS_BITS)
        total += tl.where(is_before(x, index, logit, number), mass, 0)
    return tl.sum(total, axis=0)


@triton.jit
def _pick_walking(
    own, words, has_mask, chosen, top, total, before, heat, count, share, least, seeds, counters,
    row, tops, parts,
    WIDTH: tl.constexpr, BLOCK: tl.constexpr, BLOCK_PARTS: tl.constexpr, MASS_BITS: tl.constexpr,
):  # fmt: skip
    """The pick from a row whose list is too short."""
    if count > 0:
        last = last_ranked(
            own, words, has_mask, tops, tl.minimum(count, WIDTH), parts, WIDTH, BLOCK, BLOCK_PARTS
        )
        limit = allowed_logits(own, words, has_mask, last, WIDTH)
        if share < 1:
            total = _mass_before(
                own, words, has_mask, limit, last + 1, top, heat, parts, WIDTH, BLOCK, MASS_BITS
            )
        if is_up_to(tl.load(own + chosen), chosen, limit, last) == 0:
            chosen = _best_before(
                own, words, has_mask, limit, last + 1, heat, seeds, counters, row, parts,
                WIDTH, BLOCK,
            )  # fmt: skip
            if share < 1:
                before = _mass_before(
                    own, words, has_mask, tl.load(own + chosen), chosen, top, heat, parts,
                    WIDTH, BLOCK, MASS_BITS,
                )  # fmt: skip
    wanted = tl.where(share < 1, wanted_of(share, total), float("inf"))
    while (before.to(tl.float64) >= wanted) | (
        ratio_of(tl.load(own + chosen), top, heat) < least.to(tl.float64)
    ):
        logit = tl.load(own + chosen)
        chosen = _best_before(
            own, words, has_mask, logit, chosen, heat, seeds, counters, row, parts, WIDTH, BLOCK
        )
        before = _mass_before(
            own, words, has_mask, tl.load(own + chosen), chosen, top, heat, parts,
            WIDTH, BLOCK, MASS_BITS,
        )  # fmt: skip
    return chosen


@triton.jit
def nucleus_pick(
    own,  # [WIDTH] f32: the row's logits
    words,
    has_mask,
    chosen,  # the pick from all allowed ids
    top,  # the largest allowed logit
    total,  # mass of all allowed ids
    before,  # mass of those before the chosen
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
        if num_listed <= LIST:
            chosen = _pick_listed(
                own, listed, num_listed, top, total, heat, count, share, least, seeds, counters,
                row, LIST, MASS_BITS,
            )  # fmt: skip
        else:
            chosen = _pick_walking(
                own, words, has_mask, chosen, top, total, before, heat, count, share, least,
                seeds, counters, row, tops, parts, WIDTH, BLOCK, BLOCK_PARTS, MASS_BITS,
            )  # fmt: skip
    return chosen
