"""What Triton kernels share that cut long rows into parts, a program each. Knows no op, no target.

Sums of parts are integers: then neither the layout that a compiler chooses nor the order in which
programs end changes a bit, and two kernels that sum the same row agree.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def order_of(x):
    """u32 in the order of the f32, which are no NaN; zeros of both signs are equal."""
    bits = tl.where(x == 0.0, 0.0, x).to(tl.uint32, bitcast=True)
    return tl.where(bits >> 31 == 1, bits ^ 0xFFFFFFFF, bits | 0x80000000)


@triton.jit
def top_of(x, axis: tl.constexpr = 0):
    """The largest value along the axis; NaN where there is one."""
    is_broken = tl.max((x != x).to(tl.int32), axis=axis) > 0
    largest = tl.max(tl.where(x == x, x, float("-inf")), axis=axis)
    return tl.where(is_broken, float("nan"), largest)


@triton.jit
def top_of_parts(tops, parts, BLOCK_PARTS: tl.constexpr):
    """The row's largest value, from the `parts` values of its parts."""
    part = tl.arange(0, BLOCK_PARTS)
    return top_of(tl.load(tops + part, mask=part < parts, other=float("-inf")))


@triton.jit
def sum_of_exp(x, top, MASS_BITS: tl.constexpr, axis: tl.constexpr = 0):
    """Sum along the axis of exp(x - top) in whole 2^-MASS_BITS, i64.

    Any number where `top`, which is broadcast, is NaN or infinite.
    """
    power = tl.where(x < top, x - top, 0.0)
    return tl.sum((tl.exp(power) * (1 << MASS_BITS)).to(tl.int64), axis=axis)


@triton.jit
def logprob_of(x, tops, sums, parts, BLOCK_PARTS: tl.constexpr, MASS_BITS: tl.constexpr):
    """`logprob_of_parts` of the parts that other programs left in memory."""
    part = tl.arange(0, BLOCK_PARTS)
    part_tops = tl.load(tops + part, mask=part < parts, other=float("-inf"))
    part_sums = tl.load(sums + part, mask=part < parts, other=0)
    return logprob_of_parts(x, part_tops, part_sums, MASS_BITS)


@triton.jit
def log_of_parts(part_tops, part_sums, MASS_BITS: tl.constexpr):
    """The row's largest value, f64, and the logarithm of its sum of exponentials below that, from
    the largest values and `sum_of_exp` of all parts."""
    top = top_of(part_tops)
    wide = top.to(tl.float64)
    power = tl.where(part_tops < top, part_tops.to(tl.float64) - wide, 0.0)
    total = tl.sum((part_sums.to(tl.float64) * tl.exp(power)).to(tl.int64), axis=0)
    return wide, tl.log(total.to(tl.float64) / (1 << MASS_BITS))


@triton.jit
def logprob_under(x, wide, log):
    """The f32 log-probabilities of logits x, from what `log_of_parts` gives.

    NaN where the row has a NaN, a +inf or no finite value.
    """
    logprob = ((x.to(tl.float64) - wide) - log).to(tl.float32)
    return tl.where(tl.abs(wide) < float("inf"), logprob, float("nan"))


@triton.jit
def logprob_of_parts(x, part_tops, part_sums, MASS_BITS: tl.constexpr):
    """`logprob_under` with what the parts give."""
    wide, log = log_of_parts(part_tops, part_sums, MASS_BITS)
    return logprob_under(x, wide, log)
