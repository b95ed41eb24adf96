"""Triton kernels of the nucleus: its least logit is found digit by digit, no sort. Know no target.

The last id of the first top_k is found before, by one program a row, which counts as the others add
up; ids behind it have no mass.

Logits are taken as unsigned integers of the same order, whose digits, the highest first, are found
by launches: each adds up, for every value of the next digit, the masses of the logits that begin
with the digits found, and the following launch reads from the sums which digit it is. The number
of launches is fixed, so that no row can make them many. Masses are integers as in
`portable/kernels/sample.py`: sums have the same bits in any order.

Rows that are sampled from all ids, and those of temperature 0, are copied by the first launch and
left alone by the others. Rows with a NaN, which has no place in an order, stay as they are: the
engine notices it behind the pick.
"""

from __future__ import annotations

import triton
import triton.language as tl

from lostwax.backends.gpu_kernels.mask import allowed_logits
from lostwax.backends.gpu_kernels.row_parts import order_of, top_of, top_of_parts


@triton.jit
def ratio_of(x, top, heat):
    """exp((x - top) / heat), f64: how likely an id is beside the likeliest."""
    below = tl.where(x < top, x.to(tl.float64) - top.to(tl.float64), 0.0)
    return tl.exp(below * (1.0 / heat.to(tl.float64)))


@triton.jit
def mass_of(x, top, heat, MASS_BITS: tl.constexpr):
    """The same in whole 2^-MASS_BITS, i64."""
    return (ratio_of(x, top, heat) * (1 << MASS_BITS)).to(tl.int64)


@triton.jit
def is_up_to(x, index, logit, number):
    """Whether ids stand before id `number` of that logit in the row's order, or are it."""
    return (x > logit) | ((x == logit) & (index <= number))


@triton.jit
def last_ranked(
    own,
    words,
    has_mask,
    tops,  # [parts] f32
    count,
    parts,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_PARTS: tl.constexpr,
):
    """The id that is number `count` in the order of a row's allowed ids, 1 being the first; `count`
    is WIDTH at most, and the row has no NaN.

    Parts whose largest logit is below the count-th largest of all parts' hold none of the first
    `count`: they are not looked at.
    """
    part = tl.arange(0, BLOCK_PARTS)
    largest = order_of(tl.load(tops + part, mask=part < parts, other=float("-inf"))).to(tl.int64)
    largest = tl.where(part < parts, largest, -1)
    floor = count.to(tl.int64) * 0
    bit = floor + 2147483648
    for _ in range(0, 32):
        num_held = tl.sum((largest >= floor + bit).to(tl.int32), axis=0)
        floor = tl.where(num_held >= count, floor + bit, floor)
        bit = bit >> 1
    prefix = floor * 0
    above = count * 0
    digit = tl.arange(0, 16)
    for level in range(0, 8):
        held = tl.zeros((16,), tl.int32)
        for number in range(0, parts):
            if order_of(tl.load(tops + number)).to(tl.int64) >= floor:
                index = number * BLOCK + tl.arange(0, BLOCK)
                x = allowed_logits(own, words, has_mask, index, WIDTH)
                cut = order_of(x).to(tl.int64) >> (28 - 4 * level)
                begins = (index < WIDTH) & ((cut >> 4) == prefix)
                is_digit = digit[:, None] == (cut & 15).to(tl.int32)[None, :]
                held += tl.sum((begins[None, :] & is_digit).to(tl.int32), axis=1)
        at_least = above + tl.sum(held, axis=0) - tl.cumsum(held, axis=0) + held
        chosen = tl.max(tl.where(at_least >= count, digit, 0), axis=0)
        above += tl.sum(tl.where(digit > chosen, held, 0), axis=0)
        prefix = prefix * 16 + chosen
    found = count * 0
    seen = above
    for number in range(0, parts):
        if order_of(tl.load(tops + number)).to(tl.int64) >= floor:
            index = number * BLOCK + tl.arange(0, BLOCK)
            x = allowed_logits(own, words, has_mask, index, WIDTH)
            is_last = (index < WIDTH) & (order_of(x).to(tl.int64) == prefix)
            rank = seen + tl.cumsum(is_last.to(tl.int32), axis=0)
            found = tl.maximum(found, tl.max(tl.where(is_last & (rank == count), index, 0), axis=0))
            seen += tl.sum(is_last.to(tl.int32), axis=0)
    return found


@triton.jit
def _is_ranked(x, index, own, last, count):
    """Whether ids are among the row's first `count`, the last of which is in `last`; all at 0."""
    number = tl.load(last, mask=count > 0, other=0)
    return is_up_to(x, index, tl.load(own + number), number) | (count <= 0)


@triton.jit
def wanted_of(share, total):
    """The mass (f64) before which an id is in the nucleus, of a row's share and whole mass."""
    # the likeliest id is inside at any share; masses are whole numbers
    return tl.maximum(share.to(tl.float64) * total.to(tl.float64), 0.5)


@triton.jit
def _decided(sums, state, share, is_counted, DIGIT_BITS: tl.constexpr):
    """The digits found so far, with the one that the row's `sums` decide; none is if not counted.

    sums [digits]; state [3]: the digits found before, the mass above all that begins with them, and
    the row's whole mass or 0 where it is not known. Returns the digits, the mass above them, the
    whole mass, and the mass (f64) before which an id is in the nucleus.
    """
    digit = tl.arange(0, 1 << DIGIT_BITS)
    mass = tl.load(sums + digit, mask=(digit >= 0) & is_counted, other=0)
    prefix = tl.load(state, mask=is_counted, other=0)
    above = tl.load(state + 1, mask=is_counted, other=0)
    total = tl.load(state + 2, mask=is_counted, other=0)
    total = tl.where(total > 0, total, tl.sum(mass, axis=0))
    wanted = wanted_of(share, total)
    above_digit = above + tl.sum(mass, axis=0) - tl.cumsum(mass, axis=0)
    is_inside = above_digit.to(tl.float64) < wanted
    least = tl.min(tl.where(is_inside, digit, (1 << DIGIT_BITS) - 1), axis=0)
    above = tl.sum(tl.where(digit == least, above_digit, 0), axis=0)
    return (prefix << DIGIT_BITS) + least, above, total, wanted


@triton.jit
def _share_of(top_p, top):
    """top_p; 0 beneath a +inf, of which the first has the whole mass."""
    return tl.where(top == float("inf"), 0.0, top_p)


@triton.jit
def nucleus_copy(
    logits,  # [R, WIDTH] f32
    out,  # [R, WIDTH] f32
    tops,  # [R, parts] f32
    sums,  # [R, SUMS] i64
    logits_stride,
    out_stride,
    parts,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    SUMS: tl.constexpr,
):
    """One part of one row: the logits as they are, and the largest of them. Sums begin at zero."""
    row = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    index = part * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(logits + row * logits_stride + index, mask=index < WIDTH, other=float("-inf"))
    tl.store(out + row * out_stride + index, x, mask=index < WIDTH)
    tl.store(tops + row * parts + part, top_of(x))
    if part == 0:
        tl.store(sums + row * SUMS + tl.arange(0, SUMS), tl.zeros((SUMS,), tl.int64))


@triton.jit
def nucleus_rank(
    logits,  # [R, WIDTH] f32
    temperature,  # [R] f32
    top_k,  # [R] i32
    tops,  # [R, parts] f32
    last,  # [R] i32: the last of the first top_k ids
    logits_stride,
    parts,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_PARTS: tl.constexpr,
):
    """One row, where it has a top_k."""
    row = tl.program_id(0).to(tl.int64)
    count = tl.load(top_k + row)
    top = top_of_parts(tops + row * parts, parts, BLOCK_PARTS)
    if (count > 0) & (tl.load(temperature + row) > 0) & (top == top):
        own = logits + row * logits_stride
        found = last_ranked(
            own, top_k, count < 0, tops + row * parts, tl.minimum(count, WIDTH), parts,
            WIDTH, BLOCK, BLOCK_PARTS,
        )  # fmt: skip
        tl.store(last + row, found)


@triton.jit
def nucleus_narrow(
    logits,  # [R, WIDTH] f32
    temperature,  # [R] f32
    top_k,  # [R] i32
    top_p,  # [R] f32
    tops,  # [R, parts] f32
    last,  # [R] i32
    masses,  # [R, parts, digits] i64
    sums,  # [R, SUMS] i64, of all parts by digit: the highest digit first, then its value
    state_before,  # [R, 3] i64
    state,  # [R, 3] i64
    logits_stride,
    parts,
    shift,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_PARTS: tl.constexpr,
    DIGIT_BITS: tl.constexpr,
    MASS_BITS: tl.constexpr,
    SUMS: tl.constexpr,
):
    """One part of one row: masses by the digit whose lowest bit is `shift`."""
    row = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    heat = tl.load(temperature + row)
    share = tl.load(top_p + row)
    if (heat > 0) & (share < 1):
        index = part * BLOCK + tl.arange(0, BLOCK)
        x = tl.load(logits + row * logits_stride + index, mask=index < WIDTH, other=0.0)
        top = top_of_parts(tops + row * parts, parts, BLOCK_PARTS)
        own_sums = sums + row * SUMS + ((32 - DIGIT_BITS - shift) // DIGIT_BITS << DIGIT_BITS)
        prefix, above, total, _ = _decided(
            own_sums - (1 << DIGIT_BITS),
            state_before + row * 3,
            _share_of(share, top),
            shift + DIGIT_BITS < 32,
            DIGIT_BITS,
        )
        if part == 0:
            tl.store(state + row * 3, prefix)
            tl.store(state + row * 3 + 1, above)
            tl.store(state + row * 3 + 2, total)
        cut = order_of(x) >> shift.to(tl.uint32)
        begins = (index < WIDTH) & ((cut >> DIGIT_BITS) == prefix.to(tl.uint32))
        count = tl.load(top_k + row)
        if top == top:
            begins = begins & _is_ranked(x, index, logits + row * logits_stride, last + row, count)
        digit = tl.arange(0, 1 << DIGIT_BITS)
        found = tl.zeros((1 << DIGIT_BITS,), tl.int64)
        if tl.max(begins.to(tl.int32), axis=0) > 0:  # of most parts none, after a few digits
            mass = tl.where(begins, mass_of(x, top, heat, MASS_BITS), 0)
            own = (cut & ((1 << DIGIT_BITS) - 1)).to(tl.int32)
            found = tl.sum(tl.where(digit[:, None] == own[None, :], mass[None, :], 0), axis=1)
            tl.atomic_add(own_sums + digit, found, mask=found > 0, sem="relaxed")
        if shift == 0:  # of equal logits the parts before decide which are inside
            tl.store(masses + ((row * parts + part) << DIGIT_BITS) + digit, found)


@triton.jit
def nucleus_cut(
    logits,  # [R, WIDTH] f32
    temperature,  # [R] f32
    top_k,  # [R] i32
    top_p,  # [R] f32
    tops,  # [R, parts] f32
    last,  # [R] i32
    masses,  # [R, parts, digits] i64, of the last digit
    sums,  # [R, SUMS] i64
    min_p,  # [R] f32
    state,  # [R, 3] i64
    out,  # [R, WIDTH] f32
    logits_stride,
    out_stride,
    parts,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_PARTS: tl.constexpr,
    DIGIT_BITS: tl.constexpr,
    MASS_BITS: tl.constexpr,
    SUMS: tl.constexpr,
):
    """One part of one row: -inf for what is outside. Of the least logits inside, the first stay."""
    row = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    heat = tl.load(temperature + row)
    count = tl.load(top_k + row)
    share = tl.load(top_p + row)
    ratio = tl.load(min_p + row)
    top = top_of_parts(tops + row * parts, parts, BLOCK_PARTS)
    narrows = (count > 0) | (share < 1) | (ratio > 0)
    if (heat > 0) & narrows & (top == top):
        index = part * BLOCK + tl.arange(0, BLOCK)
        own = logits + row * logits_stride
        x = tl.load(own + index, mask=index < WIDTH, other=0.0)
        kept = _is_ranked(x, index, own, last + row, count)
        kept = kept & (ratio_of(x, top, heat) >= ratio.to(tl.float64))
        if share < 1:
            prefix, above, _, wanted = _decided(
                sums + row * SUMS + SUMS - (1 << DIGIT_BITS),
                state + row * 3,
                _share_of(share, top),
                True,
                DIGIT_BITS,
            )
            order = order_of(x)
            least = prefix.to(tl.uint32)
            in_share = order > least
            is_least = (index < WIDTH) & (order == least)
            if tl.max(is_least.to(tl.int32), axis=0) > 0:
                earlier = tl.arange(0, BLOCK_PARTS)
                at = ((row * parts + earlier) << DIGIT_BITS) + (prefix & ((1 << DIGIT_BITS) - 1))
                before = tl.sum(tl.load(masses + at, mask=earlier < part, other=0), axis=0)
                mass = tl.where(is_least & kept, mass_of(x, top, heat, MASS_BITS), 0)
                before += above + tl.cumsum(mass, axis=0) - mass
                in_share = in_share | (is_least & (before.to(tl.float64) < wanted))
            kept = kept & in_share
        is_outside = (index < WIDTH) & (kept == 0)
        tl.store(out + row * out_stride + index, float("-inf"), mask=is_outside)
