"""The first ids of a row, largest logit first, among a list that holds them all. Knows no op.

A row's parts leave the largest logits of groups of ids. Of these one program takes a floor at or
above which as many groups lie as ids are wanted, hence as many ids at least, and hardly more. The
parts append the ids from there on to the row's list, in any order: what is looked for depends on
logits and ids alone. A list that would be longer than it may is of no use: then rows are walked.
"""

from __future__ import annotations

import triton
import triton.language as tl

from lostwax.backends.gpu_kernels.row_parts import order_of


@triton.jit
def key_of(x, index):
    """i64 in the order of rows: the largest logit first, of equals the lowest index, NaN last."""
    order = tl.where(x == x, order_of(x).to(tl.int64), 0)
    return (order << 18) | (262143 - index)


@triton.jit
def floor_of(keys, count, most):
    """A number at or above which at least `count` of the keys lie, and no more than `most` unless
    equal keys are among them; the least key where there are not more than `count`.

    keys: i64, of which -1 stands for none; `count` is 1 at least.
    """
    high = tl.max(keys, axis=0) + 1
    floor = tl.min(tl.where(keys >= 0, keys, high), axis=0)
    held = tl.sum((keys >= 0).to(tl.int32), axis=0)
    is_open = held > most
    while is_open:
        middle = floor + ((high - floor) >> 1)
        above = tl.sum((keys >= middle).to(tl.int32), axis=0)
        is_enough = above >= count
        floor = tl.where(is_enough, middle, floor)
        held = tl.where(is_enough, above, held)
        high = tl.where(is_enough, high, middle)
        is_open = (held > most) & (high - floor > 1)
    return floor


@triton.jit
def store_groups(x, groups, BLOCK: tl.constexpr, OF_PART: tl.constexpr):
    """The largest logits of the groups of a part; NaN counts as -inf."""
    known = tl.where(x == x, x, float("-inf"))
    largest = tl.max(tl.reshape(known, (OF_PART, BLOCK // OF_PART), can_reorder=True), axis=1)
    tl.store(groups + tl.arange(0, OF_PART), largest)


@triton.jit
def floor_of_groups(groups, count, num_groups, BLOCK_GROUPS: tl.constexpr):
    """A logit at or above which at least `count` of the row's ids lie: -inf, where so few groups
    have a larger one."""
    group = tl.arange(0, BLOCK_GROUPS)
    inside = group < num_groups
    largest = tl.load(groups + group, mask=inside, other=float("-inf"), cache_modifier=".cg")
    is_known = largest > float("-inf")
    keys = tl.where(is_known, order_of(largest).to(tl.int64), -1)
    least = floor_of(keys, count, count + (count >> 4) + 8)
    floor = tl.min(tl.where(keys >= tl.maximum(least, 0), largest, float("inf")), axis=0)
    is_enough = tl.sum(is_known.to(tl.int32), axis=0) >= count
    return tl.where(is_enough, floor, float("-inf"))


@triton.jit
def append(listed, num_listed, index, is_wanted, LIST: tl.constexpr):
    """Append a part's wanted ids to its row's list, as far as it holds them; `num_listed` counts
    them all."""
    wanted = is_wanted.to(tl.int32)
    count = tl.sum(wanted, axis=0)
    if count > 0:
        place = tl.atomic_add(num_listed, count, sem="relaxed") + tl.cumsum(wanted, axis=0) - 1
        tl.store(listed + place, index, mask=is_wanted & (place < LIST))
