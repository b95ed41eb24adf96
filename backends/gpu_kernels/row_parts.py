"""What Triton kernels share that cut long rows into parts, a program each. Knows no op, no target.

Sums of parts are integers: then neither the layout that a compiler chooses nor the order in which
programs end changes a bit, and two kernels that sum the same row agree.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def top_of(x):
    """The largest value; NaN where there is one."""
    is_broken = tl.max((x != x).to(tl.int32), axis=0) > 0
    largest = tl.max(tl.where(x == x, x, float("-inf")), axis=0)
    return tl.where(is_broken, float("nan"), largest)


@triton.jit
def top_of_parts(tops, parts, BLOCK_PARTS: tl.constexpr):
    """The row's largest value, from the `parts` values of its parts."""
    part = tl.arange(0, BLOCK_PARTS)
    return top_of(tl.load(tops + part, mask=part < parts, other=float("-inf")))


@triton.jit
def sum_of_exp(x, top, MASS_BITS: tl.constexpr):
    """Sum of exp(x - top) in whole 2^-MASS_BITS, i64; any number where `top` is NaN or infinite."""
    power = tl.where(x < top, x - top, 0.0)
    return tl.sum((tl.exp(power) * (1 << MASS_BITS)).to(tl.int64), axis=0)


@triton.jit
def logprob_of(x, tops, sums, parts, BLOCK_PARTS: tl.constexpr, MASS_BITS: tl.constexpr):
    """The f32 log-probability of logit x, from the largest values and `sum_of_exp` of all parts.

    NaN where the row has a NaN, a +inf or no finite value.
    """
    part = tl.arange(0, BLOCK_PARTS)
    part_tops = tl.load(tops + part, mask=part < parts, other=float("-inf"))
    part_sums = tl.load(sums + part, mask=part < parts, other=0)
    top = top_of(part_tops)
    wide = top.to(tl.float64)
    power = tl.where(part_tops < top, part_tops.to(tl.float64) - wide, 0.0)
    total = tl.sum((part_sums.to(tl.float64) * tl.exp(power)).to(tl.int64), axis=0)
    logprob = (x.to(tl.float64) - wide) - tl.log(total.to(tl.float64) / (1 << MASS_BITS))
    return tl.where(tl.abs(top) < float("inf"), logprob.to(tl.float32), float("nan"))
