"""Triton kernels of a sampling head's whole tail: penalties, bias, mask, nucleus, pick and
log-probability.

Bits are those of the kernels that take these one by one (`mask.py`, `nucleus.py`, `pick.py`). Know
no target.

The first launch applies a row's penalties and bias and keeps what that gives for the others, which
read it as its logits; rows without either are not copied.

The nucleus is never made. The pick from all allowed ids is the pick from the nucleus wherever it
lies in it, and whether it does is one sum: the mass of the ids before it in the nucleus's order,
largest logit first. Where it does not, neither do those behind it, and the best of the ids before
it is tried next. With a top_p of 0.95 the first try holds 19 times of 20; the expected number of
tries is 1 + ln(1 / top_p) at most. So it is with min_p, by the id's own mass, and with top_k: of a
row that has one the last of the first top_k ids is looked for, and of what is behind it nothing is
tried.
"""

from __future__ import annotations

import triton
import triton.language as tl

from lostwax.backends.gpu_kernels.mask import allowed_logits, is_allowed, mask_of
from lostwax.backends.gpu_kernels.nucleus import (
    is_up_to,
    last_ranked,
    mass_of,
    ratio_of,
    wanted_of,
)
from lostwax.backends.gpu_kernels.pick import first_of_largest, gumbel
from lostwax.backends.gpu_kernels.row_parts import logprob_of, sum_of_exp, top_of, top_of_parts


@triton.jit
def _score(x, heat, seeds, counters, row, index):
    """What the largest of is picked: the logit, at a temperature divided by it and with noise."""
    score = x.to(tl.float64)
    if heat > 0:
        seed = tl.load(seeds + row).to(tl.uint32, bitcast=True)
        counter = tl.load(counters + row).to(tl.uint32, bitcast=True)
        score = score / heat.to(tl.float64) + gumbel(seed, counter, index.to(tl.uint32))
    return score


@triton.jit
def _is_before(x, index, logit, number):
    """Whether ids stand before id `number` of that logit in the nucleus's order."""
    return (x > logit) | ((x == logit) & (index < number))


@triton.jit
def _best_of_parts(scores, ids, parts, BLOCK_PARTS: tl.constexpr):
    """The id of the best score of a row's parts, the lowest of equals."""
    part = tl.arange(0, BLOCK_PARTS)
    score = tl.load(scores + part, mask=part < parts, other=float("-inf"))
    named = tl.load(ids + part, mask=part < parts, other=2147483647)
    return first_of_largest(score, named)[1]


@triton.jit
def _own_logits(logits, biased, bias_rows, count_rows, row, logits_stride, WIDTH: tl.constexpr):
    """Where the logits begin that a row is sampled from: its own, or what was made of them."""
    is_made = (tl.load(bias_rows + row) >= 0) | (tl.load(count_rows + row) >= 0)
    return tl.where(is_made, biased + row * WIDTH, logits + row * logits_stride)


@triton.jit
def _penalised(
    x,
    index,
    held,
    recent,
    factor,
    often,
    once,
    RECENT: tl.constexpr,
):
    """A row's logits at some indexes less what is asked for ids that have come: `held` times and
    once more for each of `recent`."""
    outputs = held >> 1
    for number in tl.static_range(RECENT):
        outputs += (index == tl.load(recent + number)).to(tl.int32)
    is_seen = ((held & 1) == 1) | (outputs > 0)
    repeated = tl.where(x > 0, x / factor, x * factor)
    x = tl.where(is_seen, repeated, x)
    x -= often * outputs.to(tl.float32)
    return x - tl.where(outputs > 0, once, 0.0)


@triton.jit
def sample_split(
    logits,  # [R, WIDTH] f32
    counts,  # [C, WIDTH] i32
    count_rows,  # [R] i32, -1: none
    recent,  # [R, RECENT] i32, -1: none
    repetition,  # [R] f32
    frequency,  # [R] f32
    presence,  # [R] f32
    biases,  # [Q, WIDTH] f32
    bias_rows,  # [R] i32, -1: none
    biased,  # [R, WIDTH] f32: logits with penalties and bias, of rows that have either
    masks,  # [M, WORDS] i32
    mask_rows,  # [R] i32, -1: none
    temperature,  # [R] f32
    seeds,  # [R] i32
    counters,  # [R] i32
    scores,  # [R, parts] f64
    best,  # [R, parts] i32
    tops,  # [R, parts] f32
    sums,  # [R, parts] i64
    allowed_tops,  # [R, parts] f32
    real_rows,  # [1] i32: rows behind it are left alone
    logits_stride,
    parts,
    WIDTH: tl.constexpr,
    WORDS: tl.constexpr,
    BLOCK: tl.constexpr,
    MASS_BITS: tl.constexpr,
    RECENT: tl.constexpr,
):
    """One part of one row: the best score of its allowed ids, their largest logit, and of all its
    ids the largest logit and the sum of exponentials."""
    row = tl.program_id(0).to(tl.int64)
    if row >= tl.load(real_rows):
        return
    part = tl.program_id(1)
    index = part * BLOCK + tl.arange(0, BLOCK)
    own = logits + row * logits_stride
    x = tl.load(own + index, mask=index < WIDTH, other=float("-inf"))
    top = top_of(x)
    at = row * parts + part
    tl.store(tops + at, top)
    tl.store(sums + at, sum_of_exp(x, top, MASS_BITS))
    counted = tl.load(count_rows + row)
    if counted >= 0:
        own_counts = counts + counted.to(tl.int64) * WIDTH
        held = tl.load(own_counts + index, mask=index < WIDTH, other=0)
        x = _penalised(
            x, index, held, recent + row * RECENT, tl.load(repetition + row),
            tl.load(frequency + row), tl.load(presence + row), RECENT,
        )  # fmt: skip
    bias = tl.load(bias_rows + row)
    if bias >= 0:
        added = tl.load(biases + bias.to(tl.int64) * WIDTH + index, mask=index < WIDTH, other=0.0)
        x += added
    if (bias >= 0) | (counted >= 0):
        tl.store(biased + row * WIDTH + index, x, mask=index < WIDTH)
    words, has_mask = mask_of(masks, mask_rows, row, WORDS)
    x = tl.where(is_allowed(words, has_mask, index, WIDTH), x, float("-inf"))
    score = _score(x, tl.load(temperature + row), seeds, counters, row, index)
    largest, first = first_of_largest(score, index)
    tl.store(scores + at, largest)
    tl.store(best + at, first)
    tl.store(allowed_tops + at, top_of(x))


@triton.jit
def sample_weigh(
    logits,
    biased,
    bias_rows,
    count_rows,
    masks,
    mask_rows,
    temperature,
    top_p,  # [R] f32
    scores,
    best,
    allowed_tops,
    masses,  # [R, parts, 2] i64: of the part, and of its ids before the row's best
    real_rows,
    logits_stride,
    parts,
    WIDTH: tl.constexpr,
    WORDS: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_PARTS: tl.constexpr,
    MASS_BITS: tl.constexpr,
):
    """One part of one row that has a nucleus: masses that say whether the best id lies in it."""
    row = tl.program_id(0).to(tl.int64)
    if row >= tl.load(real_rows):
        return
    heat = tl.load(temperature + row)
    if (heat > 0) & (tl.load(top_p + row) < 1):
        at = row * parts
        top = top_of_parts(allowed_tops + at, parts, BLOCK_PARTS)
        if top == top:
            chosen = _best_of_parts(scores + at, best + at, parts, BLOCK_PARTS)
            words, has_mask = mask_of(masks, mask_rows, row, WORDS)
            own = _own_logits(logits, biased, bias_rows, count_rows, row, logits_stride, WIDTH)
            part = tl.program_id(1)
            index = part * BLOCK + tl.arange(0, BLOCK)
            x = allowed_logits(own, words, has_mask, index, WIDTH)
            mass = tl.where(index < WIDTH, mass_of(x, top, heat, MASS_BITS), 0)
            logit = tl.load(own + chosen)
            before = tl.where(_is_before(x, index, logit, chosen), mass, 0)
            tl.store(masses + 2 * (at + part), tl.sum(mass))
            tl.store(masses + 2 * (at + part) + 1, tl.sum(before))


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
        is_before = _is_before(x, index, logit, number)
        if tl.max(is_before.to(tl.int32), axis=0) > 0:
            score = _score(x, heat, seeds, counters, row, index)
            is_better = is_before & ((score > largest) | (first == 2147483647))
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
        total += tl.where(_is_before(x, index, logit, number), mass, 0)
    return tl.sum(total, axis=0)


@triton.jit
def sample_pick(
    logits,
    biased,
    bias_rows,
    count_rows,
    masks,
    mask_rows,
    temperature,
    top_k,  # [R] i32
    top_p,
    min_p,  # [R] f32
    seeds,
    counters,
    scores,
    best,
    tops,
    sums,
    allowed_tops,
    masses,
    ids,  # [R] i32
    logprobs,  # [R] f32
    real_rows,
    logits_stride,
    parts,
    WIDTH: tl.constexpr,
    WORDS: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_PARTS: tl.constexpr,
    MASS_BITS: tl.constexpr,
):
    """One row: an id of the nucleus of those that its mask allows, and the log-probability under
    all its logits. A row without a nucleus, or with a NaN, is picked from all of these ids."""
    row = tl.program_id(0).to(tl.int64)
    if row >= tl.load(real_rows):
        return
    own = _own_logits(logits, biased, bias_rows, count_rows, row, logits_stride, WIDTH)
    at = row * parts
    chosen = _best_of_parts(scores + at, best + at, parts, BLOCK_PARTS)
    heat = tl.load(temperature + row)
    count = tl.load(top_k + row)
    share = tl.load(top_p + row)
    least = tl.load(min_p + row)
    top = top_of_parts(allowed_tops + at, parts, BLOCK_PARTS)
    narrows = (count > 0) | (share < 1) | (least > 0)
    if (heat > 0) & narrows & (top > float("-inf")):
        part = tl.arange(0, BLOCK_PARTS)
        weighed = masses + 2 * (at + part)
        is_weighed = part < tl.where(share < 1, parts, 0)
        total = tl.sum(tl.load(weighed, mask=is_weighed, other=0))
        before = tl.sum(tl.load(weighed + 1, mask=is_weighed, other=0))
        words, has_mask = mask_of(masks, mask_rows, row, WORDS)
        if count > 0:
            last = last_ranked(
                own, words, has_mask, allowed_tops + at, tl.minimum(count, WIDTH), parts,
                WIDTH, BLOCK, BLOCK_PARTS,
            )  # fmt: skip
            limit = allowed_logits(own, words, has_mask, last, WIDTH)
            if share < 1:
                total = _mass_before(
                    own, words, has_mask, limit, last + 1, top, heat, parts,
                    WIDTH, BLOCK, MASS_BITS,
                )  # fmt: skip
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
                own, words, has_mask, logit, chosen, heat, seeds, counters, row, parts,
                WIDTH, BLOCK,
            )  # fmt: skip
            before = _mass_before(
                own, words, has_mask, tl.load(own + chosen), chosen, top, heat, parts,
                WIDTH, BLOCK, MASS_BITS,
            )  # fmt: skip
    x = tl.load(logits + row * logits_stride + chosen)
    logprob = logprob_of(x, tops + at, sums + at, parts, BLOCK_PARTS, MASS_BITS)
    tl.store(ids + row, chosen)
    tl.store(logprobs + row, logprob)
