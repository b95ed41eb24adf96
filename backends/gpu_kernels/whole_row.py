"""Triton kernels of the sampling heads for rows that one program holds: one launch, no scratch.

Bits are those of the kernels that split a row (`nucleus.py`, `pick.py`): a row lies here as
[parts, BLOCK_PART], of which log-probabilities are summed part by part, and all else is whole
numbers or has no order. Know no target.

The nucleus is all logits above its least one and, of those equal to it, the first. Whether a logit
is too low is one sum of masses; the search halves what is left between two logits of the row, by
their mean, or in every fourth pass by their place in the order of f32, which bounds the passes.
"""

from __future__ import annotations

import triton
import triton.language as tl

from lostwax.backends.gpu_kernels.mask import is_allowed, mask_of
from lostwax.backends.gpu_kernels.nucleus import mass_of, order_of, wanted_of
from lostwax.backends.gpu_kernels.pick import first_of_largest, gumbel
from lostwax.backends.gpu_kernels.row_parts import logprob_of_parts, sum_of_exp, top_of


@triton.jit
def _value_of(order):
    """The f32 whose `order_of` is `order`."""
    bits = tl.where(order >> 31 == 1, order ^ 0x80000000, order ^ 0xFFFFFFFF)
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def _between(low, high, is_by_order):
    """A number in [low, high), for f32 low < high, both finite: near their middle."""
    lowest = order_of(low)
    middle = _value_of(lowest + ((order_of(high) - lowest) >> 1))
    middle = tl.where(is_by_order, middle, 0.5 * low + 0.5 * high)
    return tl.where((middle >= low) & (middle < high), middle, low)


@triton.jit
def _least_inside(x, mass, top, wanted):
    """The least logit of the nucleus: above it is less than the mass `wanted`, from it on not."""
    low = tl.min(tl.where(mass > 0, x, float("inf")))
    high = top
    passes = 0
    while low < high:
        middle = _between(low, high, passes % 4 == 3)
        above = tl.sum(tl.where(x > middle, mass, 0))
        is_low_enough = above.to(tl.float64) < wanted
        below = tl.where(x > middle, float("-inf"), x)
        beyond = tl.where(x > middle, -x, float("-inf"))
        nearest = tl.max(tl.where(is_low_enough, below, beyond))
        high = tl.where(is_low_enough, nearest, high)
        low = tl.where(is_low_enough, low, -nearest)
        passes += 1
    return high


@triton.jit
def _part_of(logits, words, has_mask, index, WIDTH: tl.constexpr):
    """The logits at some indexes, -inf for forbidden ids and behind the row's end."""
    x = tl.load(logits + index, mask=index < WIDTH, other=float("-inf"))
    return tl.where(is_allowed(words, has_mask, index, WIDTH), x, float("-inf"))


@triton.jit
def _last_inside(
    logits,
    words,
    has_mask,
    x,
    mass,
    least,
    wanted,
    WIDTH: tl.constexpr,
    PARTS: tl.constexpr,
    BLOCK_PART: tl.constexpr,
):
    """The last index of the logits that equal `least` before which is less than `wanted`."""
    above = tl.sum(tl.where(x > least, mass, 0))
    own = tl.max(tl.where(x == least, mass, 0))  # equal logits have equal masses
    last = 0
    for part in range(PARTS):
        index = part * BLOCK_PART + tl.arange(0, BLOCK_PART)
        again = _part_of(logits, words, has_mask, index, WIDTH)
        equal = (again == least).to(tl.int64)
        before = above + own * (tl.cumsum(equal, axis=0) - equal)
        is_inside = (equal > 0) & (before.to(tl.float64) < wanted)
        last = tl.maximum(last, tl.max(tl.where(is_inside, index, 0), axis=0))
        above += own * tl.sum(equal, axis=0)
    return last


@triton.jit
def _first_of_tops(x, tops, PARTS: tl.constexpr, BLOCK_PART: tl.constexpr):
    """The first index of the row's largest logit, or of its NaN, by the `tops` of its parts."""
    column = tl.arange(0, BLOCK_PART)[None, :]
    is_top = (x == tops[:, None]) | ((x != x) & (tops != tops)[:, None])
    first = tl.min(tl.where(is_top, column, BLOCK_PART), axis=1)
    return first_of_largest(tops, tl.arange(0, PARTS) * BLOCK_PART + first)[1]


@triton.jit
def _best_with_noise(
    logits,
    words,
    has_mask,
    row,
    least,
    last,
    heat,
    seeds,
    counters,
    WIDTH: tl.constexpr,
    PARTS: tl.constexpr,
    BLOCK_PART: tl.constexpr,
):
    """The id of the best score, part by part: noise takes too many registers for a whole row.

    Of a part outside the nucleus no noise is made. `least` and `last` are as in `sample_row`.
    """
    seed = tl.load(seeds + row).to(tl.uint32, bitcast=True)
    counter = tl.load(counters + row).to(tl.uint32, bitcast=True)
    first = tl.arange(0, BLOCK_PART)
    best = tl.full((BLOCK_PART,), float("-inf"), tl.float64)
    for part in range(PARTS):
        index = part * BLOCK_PART + tl.arange(0, BLOCK_PART)
        x = _part_of(logits, words, has_mask, index, WIDTH)
        is_outside = (x < least) | ((x == least) & (index > last))
        if tl.min(is_outside.to(tl.int32), axis=0) == 0:
            score = tl.where(is_outside, float("-inf"), x).to(tl.float64) / heat.to(tl.float64)
            score += gumbel(seed, counter, index.to(tl.uint32))
            is_better = (score > best) | ((score != score) & (best == best))
            best = tl.where(is_better, score, best)
            first = tl.where(is_better, index, first)
    return first_of_largest(best, first)[1]


@triton.jit
def sample_row(
    logits,  # [R, WIDTH] f32
    masks,  # [M, WORDS] i32
    mask_rows,  # [R] i32, -1: none
    temperature,  # [R] f32
    top_p,  # [R] f32
    seeds,  # [R] i32
    counters,  # [R] i32
    ids,  # [R] i32
    logprobs,  # [R] f32
    logits_stride,
    WIDTH: tl.constexpr,
    WORDS: tl.constexpr,
    PARTS: tl.constexpr,
    BLOCK_PART: tl.constexpr,
    MASS_BITS: tl.constexpr,
):
    """One row: an id of the nucleus of those that its mask allows, and the log-probability under
    all its logits. A row without a nucleus, or with a NaN, is picked from all of these ids, as
    `pick.py` does."""
    row = tl.program_id(0).to(tl.int64)
    logits += row * logits_stride
    index = tl.arange(0, PARTS)[:, None] * BLOCK_PART + tl.arange(0, BLOCK_PART)[None, :]
    x = tl.load(logits + index, mask=index < WIDTH, other=float("-inf"))
    tops = top_of(x, 1)
    sums = sum_of_exp(x, tops[:, None], MASS_BITS, 1)
    words, has_mask = mask_of(masks, mask_rows, row, WORDS)
    x = tl.where(is_allowed(words, has_mask, index, WIDTH), x, float("-inf"))
    heat = tl.load(temperature + row)
    share = tl.load(top_p + row)
    least = float("-inf")  # of the logits inside,
    last = WIDTH  # and the last index of those that equal it
    if (heat > 0) & (share < 1):
        top = tl.max(tl.where(x == x, x, float("-inf")))
        if tl.max((x != x).to(tl.int32)) == 0:
            # behind the row's end a mass is 0, unless all is -inf; beneath a +inf every mass is 0
            mass = mass_of(x, top, heat, MASS_BITS)
            wanted = wanted_of(share, tl.sum(mass))
            least = _least_inside(x, mass, top, wanted)
            if tl.sum((x == least).to(tl.int32)) > 1:  # of equals some may be outside
                last = _last_inside(
                    logits, words, has_mask, x, mass, least, wanted, WIDTH, PARTS, BLOCK_PART
                )
    if heat > 0:
        chosen = _best_with_noise(
            logits, words, has_mask, row, least, last, heat, seeds, counters,
            WIDTH, PARTS, BLOCK_PART,
        )  # fmt: skip
    else:
        chosen = _first_of_tops(x, top_of(x, 1), PARTS, BLOCK_PART)
    logprob = logprob_of_parts(tl.load(logits + chosen), tops, sums, MASS_BITS)
    tl.store(ids + row, chosen)
    tl.store(logprobs + row, logprob)
