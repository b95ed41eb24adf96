"""Triton kernels of an exact selection of each row's largest logits, without a sort or a cluster.

A row is cut into parts, a program each. Logits are taken as unsigned integers of the same order;
four launches count, digit after digit, how many of a part's begin with the digits found so far and
go on with each value of the next. Every program reads from the counts of all parts which digit the
k-th largest has. The last launch knows from the counts of the parts before its own where its
positions go. Counts are integers and positions ascend: the set does not depend on how rows are cut.
NaN and -inf are never counted; of equal logits the first are chosen. Know no target.
"""

from __future__ import annotations

import triton
import triton.language as tl

from lostwax.backends.gpu_kernels.row_parts import order_of

DIGITS = tl.constexpr(256)  # values of a digit of 8 bits
LEVELS = tl.constexpr(4)
OF_PART = tl.constexpr(1024)  # counts: every level's


@triton.jit
def _is_countable(x, index, LENGTH):
    """Neither NaN nor -inf, and inside the row."""
    return (x > float("-inf")) & (index < LENGTH)


@triton.jit
def _digit_of_level(of_row, level, parts, left, BLOCK_PARTS: tl.constexpr):
    """The digit of the left-th largest at a level, and how many of its prefix have a larger one;
    digit 0 where there are fewer than `left`. `of_row` are a row's counts, a part's levels after
    another."""
    part = tl.arange(0, BLOCK_PARTS).to(tl.int64)
    digit = tl.arange(0, DIGITS)
    at = part[:, None] * OF_PART + tl.cast(level, tl.int64) * DIGITS + digit[None, :]
    held = tl.sum(tl.load(of_row + at, mask=(part < parts)[:, None], other=0), axis=0)
    at_least = tl.sum(held, axis=0) - tl.cumsum(held, axis=0) + held
    found = tl.max(tl.where(at_least >= left, digit, 0), axis=0)
    return found, tl.sum(tl.where(digit > found, held, 0), axis=0)


@triton.jit
def topk_count(
    logits,  # [T, LENGTH] f32
    counts,  # [T, parts, LEVELS, DIGITS] i32
    real_rows,  # [1] i32: rows behind it are not read
    first_row,  # of the step, that row 0 here is
    logits_stride,
    LENGTH,
    parts,
    part_length,
    k,
    LEVEL: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_PARTS: tl.constexpr,
):
    """One part of one row: its counts at one level, the highest digit first."""
    row = tl.program_id(0).to(tl.int64)
    if first_row + row >= tl.load(real_rows):
        return
    part = tl.program_id(1)
    of_row = counts + row * parts * OF_PART
    prefix = 0
    left = k
    for level in tl.static_range(LEVEL):
        found, above = _digit_of_level(of_row, level, parts, left, BLOCK_PARTS)
        prefix = prefix * 256 + found
        left -= above
    SHIFT: tl.constexpr = 24 - 8 * LEVEL
    held = tl.zeros((DIGITS,), tl.int32)
    first = part * part_length
    for start in range(first, tl.minimum(first + part_length, LENGTH), BLOCK):
        index = start + tl.arange(0, BLOCK)
        x = tl.load(logits + row * logits_stride + index, mask=index < LENGTH, other=float("-inf"))
        cut = order_of(x) >> SHIFT
        counted = _is_countable(x, index, LENGTH)
        if LEVEL > 0:
            counted = counted & ((cut >> 8).to(tl.int32) == prefix)
        held += tl.histogram((cut & 255).to(tl.int32), DIGITS, mask=counted)
    at = part.to(tl.int64) * OF_PART + tl.cast(LEVEL, tl.int64) * DIGITS + tl.arange(0, DIGITS)
    tl.store(of_row + at, held)


@triton.jit
def topk_write(
    logits,  # [T, LENGTH] f32
    counts,  # [T, parts, LEVELS, DIGITS] i32
    out,  # [T, K] i32: positions ascending, then -1
    real_rows,  # [1] i32: rows behind it select nothing
    first_row,
    logits_stride,
    out_stride,
    LENGTH,
    parts,
    part_length,
    k,
    BLOCK: tl.constexpr,
    BLOCK_PARTS: tl.constexpr,
):
    """One part of one row: the positions that it gives; the first part writes what stands behind
    those of all."""
    row = tl.program_id(0).to(tl.int64)
    own_part = tl.program_id(1)
    lane = tl.arange(0, BLOCK)
    to = out + row * out_stride
    if first_row + row >= tl.load(real_rows):
        if own_part == 0:
            for start in range(0, k, BLOCK):
                tl.store(to + start + lane, -1, mask=start + lane < k)
        return
    of_row = counts + row * parts * OF_PART
    part = tl.arange(0, BLOCK_PARTS).to(tl.int64)
    digit = tl.arange(0, DIGITS)
    least = tl.full((), 0, tl.uint32)
    left = k
    larger = tl.zeros((BLOCK_PARTS,), tl.int32)
    equal = tl.zeros((BLOCK_PARTS,), tl.int32)
    for level in tl.static_range(LEVELS):
        found, above = _digit_of_level(of_row, level, parts, left, BLOCK_PARTS)
        least = (least << 8) + found.to(tl.uint32)
        left -= above
        at = part[:, None] * OF_PART + tl.cast(level, tl.int64) * DIGITS + digit[None, :]
        held = tl.load(of_row + at, mask=(part < parts)[:, None], other=0)
        larger += tl.sum(tl.where(digit[None, :] > found, held, 0), axis=1)
        equal = tl.sum(tl.where(digit[None, :] == found, held, 0), axis=1)
    before = part < own_part
    equal_before = tl.sum(tl.where(before, equal, 0), axis=0)
    place = tl.sum(tl.where(before, larger, 0), axis=0) + tl.minimum(equal_before, left)
    room = tl.maximum(left - equal_before, 0)
    if own_part == 0:
        written = k - left + tl.minimum(tl.sum(equal, axis=0), left)
        for start in range(0, k, BLOCK):
            behind = start + lane
            tl.store(to + behind, -1, mask=(behind >= written) & (behind < k))
    first = own_part * part_length
    for start in range(first, tl.minimum(first + part_length, LENGTH), BLOCK):
        index = start + lane
        x = tl.load(logits + row * logits_stride + index, mask=index < LENGTH, other=float("-inf"))
        order = order_of(x)
        countable = _is_countable(x, index, LENGTH)
        is_equal = (order == least) & countable
        rank = tl.cumsum(is_equal.to(tl.int32), axis=0)
        chosen = ((order > least) & countable) | (is_equal & (rank <= room))
        ahead = tl.cumsum(chosen.to(tl.int32), axis=0)
        tl.store(to + place + ahead - 1, index, mask=chosen)
        place += tl.sum(chosen.to(tl.int32), axis=0)
        room -= tl.minimum(room, tl.sum(is_equal.to(tl.int32), axis=0))
