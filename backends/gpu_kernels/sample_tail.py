"""Triton kernels of a sampling head's whole tail: penalties, bias, mask, nucleus, pick and
log-probability.

Bits are those of the kernels that take these one by one (`mask.py`, `nucleus.py`, `pick.py`). Know
no target.

The first launch applies a row's penalties and bias and keeps what that gives for the second, which
reads it as the row's logits; rows without either are not copied. Its last program of a row ends the
row that is picked from all allowed ids. In the second every part of the other rows weighs its ids
and lists those that may be picked; its last program of a row picks (`sample_nucleus.py`).
"""

from __future__ import annotations

import triton
import triton.language as tl

from lostwax.backends.gpu_kernels.arrival import is_last
from lostwax.backends.gpu_kernels.first_ids import append, floor_of_groups, store_groups
from lostwax.backends.gpu_kernels.mask import allowed_logits, is_allowed, mask_of
from lostwax.backends.gpu_kernels.nucleus import is_up_to, mass_of, ratio_of
from lostwax.backends.gpu_kernels.pick import first_of_largest
from lostwax.backends.gpu_kernels.row_parts import (
    logprob_of,
    logprob_of_parts,
    sum_of_exp,
    top_of,
)
from lostwax.backends.gpu_kernels.sample_nucleus import is_before, nucleus_pick, score_of, second_of


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
def _floor_or_second(
    made, groups, floor, score, named, runner_ups, runner_up_ids, picked, count, least, parts,
    BLOCK_PARTS: tl.constexpr, OF_PART: tl.constexpr, TRIES_TWICE: tl.constexpr,
):  # fmt: skip
    """Write the floor of a row with a top_k; the second pick of one with a share alone, else -1."""
    second = picked * 0 - 1
    if count > 0:
        tl.store(floor, floor_of_groups(groups, count, parts * OF_PART, BLOCK_PARTS * OF_PART))
    elif (TRIES_TWICE == 1) & (least <= 0):
        second = second_of(
            made, score, named, runner_ups, runner_up_ids, picked, parts, BLOCK_PARTS
        )
    return second


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
    top_k,  # [R] i32
    top_p,  # [R] f32
    min_p,  # [R] f32
    seeds,  # [R] i32
    counters,  # [R] i32
    scores,  # [R, parts] f64
    best,  # [R, parts] i32
    runner_ups,  # [R, parts] f64: the best score of the part's ids before its best one
    runner_up_ids,  # [R, parts] i32
    tops,  # [R, parts] f32
    sums,  # [R, parts] i64
    allowed_tops,  # [R, parts] f32
    groups,  # [R, parts * OF_PART] f32, of rows with a top_k
    arrived,  # [R] i32, zero
    chosen,  # [R, 2] i32: the id picked from all allowed ones, -1: the row has ended; the second,
    # picked from those before it, -1: not known
    ends,  # [R, 2] f32: the largest allowed logit, and the floor of rows with a top_k
    progress,  # [R, 2] i32: programs of the second launch that have arrived, ids that they listed
    ids,  # [R] i32
    logprobs,  # [R] f32
    real_rows,  # [1] i32: rows behind it are left alone
    logits_stride,
    parts,
    WIDTH: tl.constexpr,
    WORDS: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_PARTS: tl.constexpr,
    OF_PART: tl.constexpr,
    MASS_BITS: tl.constexpr,
    TRIES_TWICE: tl.constexpr,
    RECENT: tl.constexpr,
    SETTLE: tl.constexpr = 0,
):
    """One part of one row: the best score of its allowed ids, their largest logit, and of all its
    ids the largest logit and the sum of exponentials. The last part of a row without a nucleus, or
    with a NaN, writes the row's id and its log-probability under all logits."""
    row = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    real = tl.load(real_rows)  # what says how a row is sampled is read at once: nothing waits
    counted = tl.load(count_rows + row)
    bias = tl.load(bias_rows + row)
    heat = tl.load(temperature + row)
    count = tl.load(top_k + row)
    least = tl.load(min_p + row)
    narrows = (heat > 0) & ((count > 0) | (tl.load(top_p + row) < 1) | (least > 0))
    words, has_mask = mask_of(masks, mask_rows, row, WORDS)
    index = part * BLOCK + tl.arange(0, BLOCK)
    own = logits + row * logits_stride
    if row >= real:
        return
    x = tl.load(own + index, mask=index < WIDTH, other=float("-inf"))
    top = top_of(x)
    at = row * parts + part
    tl.store(tops + at, top)
    tl.store(sums + at, sum_of_exp(x, top, MASS_BITS))
    if counted >= 0:
        own_counts = counts + counted.to(tl.int64) * WIDTH
        held = tl.load(own_counts + index, mask=index < WIDTH, other=0)
        x = _penalised(
            x, index, held, recent + row * RECENT, tl.load(repetition + row),
            tl.load(frequency + row), tl.load(presence + row), RECENT,
        )  # fmt: skip
    if bias >= 0:
        added = tl.load(biases + bias.to(tl.int64) * WIDTH + index, mask=index < WIDTH, other=0.0)
        x += added
    if (bias >= 0) | (counted >= 0):
        tl.store(biased + row * WIDTH + index, x, mask=index < WIDTH)
    x = tl.where(is_allowed(words, has_mask, index, WIDTH), x, float("-inf"))
    tried = score_of(x, heat, seeds, counters, row, index)
    largest, first = first_of_largest(tried, index)
    tl.store(scores + at, largest)
    tl.store(best + at, first)
    tl.store(allowed_tops + at, top_of(x))
    if narrows & (count > 0):
        store_groups(x, groups + at * OF_PART, BLOCK, OF_PART)
    elif narrows & (TRIES_TWICE == 1):
        logit = tl.max(tl.where(index == first, x, float("-inf")), axis=0)
        before = is_before(x, index, logit, first)
        runner_up, named_up = first_of_largest(
            tl.where(before, tried, float("-inf")), tl.where(before, index, 2147483647)
        )
        tl.store(runner_ups + at, runner_up)
        tl.store(runner_up_ids + at, named_up)
    if is_last(arrived + row, parts, SETTLE):
        each = tl.arange(0, BLOCK_PARTS)
        there, from_part = each < parts, row * parts + each
        score = tl.load(scores + from_part, mask=there, other=float("-inf"), cache_modifier=".cg")
        named = tl.load(best + from_part, mask=there, other=2147483647, cache_modifier=".cg")
        allowed = tl.load(
            allowed_tops + from_part, mask=there, other=float("-inf"), cache_modifier=".cg"
        )
        part_tops = tl.load(tops + from_part, mask=there, other=float("-inf"), cache_modifier=".cg")
        part_sums = tl.load(sums + from_part, mask=there, other=0, cache_modifier=".cg")
        _, picked = first_of_largest(score, named)
        logprob = logprob_of_parts(tl.load(own + picked), part_tops, part_sums, MASS_BITS)
        tl.store(ids + row, picked)
        tl.store(logprobs + row, logprob)
        largest_allowed = top_of(allowed)
        narrows = narrows & (largest_allowed > float("-inf"))
        second = picked * 0 - 1
        if narrows:
            tl.store(ends + 2 * row, largest_allowed)
            tl.store(progress + 2 * row, 0)
            tl.store(progress + 2 * row + 1, 0)
            made = _own_logits(logits, biased, bias_rows, count_rows, row, logits_stride, WIDTH)
            second = _floor_or_second(
                made, groups + row * parts * OF_PART, ends + 2 * row + 1, score, named,
                runner_ups + row * parts, runner_up_ids + row * parts, picked, count, least, parts,
                BLOCK_PARTS, OF_PART, TRIES_TWICE,
            )  # fmt: skip
        tl.store(chosen + 2 * row, tl.where(narrows, picked, -1))
        tl.store(chosen + 2 * row + 1, second)


@triton.jit
def sample_weigh(
    logits,
    biased,
    bias_rows,
    count_rows,
    masks,
    mask_rows,
    temperature,
    top_k,
    top_p,
    min_p,
    seeds,
    counters,
    scores,
    best,
    tops,
    sums,
    allowed_tops,
    chosen,
    ends,
    progress,
    weights,  # [R, parts, 4] i64: mass of the part, mass and number of its ids before the chosen,
    # mass of those before the second
    listed,  # [R, LIST] i32: ids that may be picked, in any order
    ids,
    logprobs,
    real_rows,
    logits_stride,
    parts,
    WIDTH: tl.constexpr,
    WORDS: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_PARTS: tl.constexpr,
    LIST: tl.constexpr,
    MASS_BITS: tl.constexpr,
    SETTLE: tl.constexpr = 0,
):
    """One part of one row that has a nucleus: masses that say whether the chosen id lies in it, and
    the ids from which to pick where it does not. The row's last part picks."""
    row = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    real = tl.load(real_rows)
    picked = tl.load(chosen + 2 * row)
    second = tl.load(chosen + 2 * row + 1)
    if (row >= real) | (picked < 0):
        return
    heat = tl.load(temperature + row)
    count = tl.load(top_k + row)
    share = tl.load(top_p + row)
    least = tl.load(min_p + row)
    top = tl.load(ends + 2 * row)
    words, has_mask = mask_of(masks, mask_rows, row, WORDS)
    own = _own_logits(logits, biased, bias_rows, count_rows, row, logits_stride, WIDTH)
    index = part * BLOCK + tl.arange(0, BLOCK)
    x = allowed_logits(own, words, has_mask, index, WIDTH)
    logit = tl.load(own + picked)
    before = is_before(x, index, logit, picked)
    mass = tl.where(index < WIDTH, mass_of(x, top, heat, MASS_BITS), 0)
    at = 4 * (row * parts + part)
    tl.store(weights + at, tl.sum(mass, axis=0))
    tl.store(weights + at + 1, tl.sum(tl.where(before, mass, 0), axis=0))
    tl.store(weights + at + 2, tl.sum(before.to(tl.int64), axis=0))
    if second >= 0:
        is_earlier = is_before(x, index, tl.load(own + second), second)
        tl.store(weights + at + 3, tl.sum(tl.where(is_earlier, mass, 0), axis=0))
    is_open = x > float("-inf")
    if count > 0:
        is_open = is_open & (x >= tl.load(ends + 2 * row + 1))
    else:
        is_likely = ratio_of(x, top, heat) >= least.to(tl.float64)
        border = tl.where(share < 1, logit, float("-inf"))  # all ids are before that
        is_open = is_open & is_likely & is_up_to(x, index, border, picked)
    append(listed + row * LIST, progress + 2 * row + 1, index, is_open, LIST)
    if is_last(progress + 2 * row, parts, SETTLE):
        each = tl.arange(0, BLOCK_PARTS)
        there, of_part = each < parts, 4 * (row * parts + each)
        total = tl.sum(
            tl.load(weights + of_part, mask=there, other=0, cache_modifier=".cg"), axis=0
        )
        mass_before = tl.load(weights + of_part + 1, mask=there, other=0, cache_modifier=".cg")
        num_before = tl.load(weights + of_part + 2, mask=there, other=0, cache_modifier=".cg")
        is_read = there & (second >= 0)
        mass_second = tl.load(weights + of_part + 3, mask=is_read, other=0, cache_modifier=".cg")
        num_listed = tl.load(progress + 2 * row + 1, cache_modifier=".cg")
        picked = nucleus_pick(
            own, words, has_mask, picked, top, total, tl.sum(mass_before, axis=0), second,
            tl.sum(mass_second, axis=0), tl.sum(num_before, axis=0), heat, count, share, least,
            seeds, counters, row, listed + row * LIST, num_listed, scores + row * parts,
            best + row * parts, allowed_tops + row * parts, parts,
            WIDTH, BLOCK, BLOCK_PARTS, LIST, MASS_BITS,
        )  # fmt: skip
        plain = tl.load(logits + row * logits_stride + picked)
        logprob = logprob_of(
            plain, tops + row * parts, sums + row * parts, parts, BLOCK_PARTS, MASS_BITS
        )
        tl.store(ids + row, picked)
        tl.store(logprobs + row, logprob)
