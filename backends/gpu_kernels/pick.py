"""Triton kernels of the pick and of log-probabilities: a row split over programs, then combined.

Know no target. The noise is defined in `ir/reference/sample.py`; u has 25 significant bits, one
more than f32 holds, so it is f64.
"""

from __future__ import annotations

import triton
import triton.language as tl

from lostwax.backends.gpu_kernels.row_parts import logprob_of, sum_of_exp, top_of


@triton.jit
def _gumbel(seed, counter, index):
    """-log(-log(u)) with the counted bits of (seed, counter, index); all u32."""
    x = seed * 0x9E3779B1 + counter * 0x85EBCA77 + index * 0xC2B2AE3D
    x ^= x >> 16
    x *= 0x7FEB352D
    x ^= x >> 15
    x *= 0x846CA68B
    x ^= x >> 16
    u = ((x >> 8).to(tl.float64) + 0.5) / (1 << 24)
    return -tl.log(-tl.log(u))


@triton.jit
def _first_of_largest(score, index):
    """The largest score and the lowest index that has it; NaN is larger than any number."""
    is_nan = score != score
    is_broken = tl.max(is_nan.to(tl.int32), axis=0) > 0
    number = tl.where(is_nan, float("-inf"), score)
    best = tl.max(number, axis=0)
    has_won = tl.where(is_broken, is_nan.to(tl.int32), (number == best).to(tl.int32)) > 0
    first = tl.min(tl.where(has_won, index, 2147483647), axis=0)
    return tl.where(is_broken, float("nan"), best), first


@triton.jit
def pick_split(
    logits,  # [R, WIDTH] f32
    temperature,  # [R]
    seeds,  # [R]
    counters,  # [R]
    scores,  # [R, parts] f64
    ids,  # [R, parts] i32
    tops,  # [R, parts] f32
    sums,  # [R, parts] i64
    logits_stride,
    parts,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    MASS_BITS: tl.constexpr,
):
    """One part of one row: its best score with the id, its largest logit and sum of exponentials.

    The score is the logit at temperature 0, and no noise is made; else logit/temperature + noise.
    """
    row = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    index = part * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(logits + row * logits_stride + index, mask=index < WIDTH, other=float("-inf"))
    heat = tl.load(temperature + row)
    score = x.to(tl.float64)
    if heat > 0:
        seed = tl.load(seeds + row).to(tl.uint32, bitcast=True)
        counter = tl.load(counters + row).to(tl.uint32, bitcast=True)
        score = score / heat.to(tl.float64) + _gumbel(seed, counter, index.to(tl.uint32))
    best, first = _first_of_largest(score, index)
    top = top_of(x)
    at = row * parts + part
    tl.store(scores + at, best)
    tl.store(ids + at, first)
    tl.store(tops + at, top)
    tl.store(sums + at, sum_of_exp(x, top, MASS_BITS))


@triton.jit
def pick_combine(
    logits,
    part_scores,
    part_ids,
    tops,
    sums,
    ids,  # [R] i32
    logprobs,  # [R] f32
    logits_stride,
    parts,
    BLOCK_PARTS: tl.constexpr,
    MASS_BITS: tl.constexpr,
):
    """The id of the best score of all parts, the lowest of equals, and its log-probability."""
    row = tl.program_id(0).to(tl.int64)
    part = tl.arange(0, BLOCK_PARTS)
    at = row * parts
    score = tl.load(part_scores + at + part, mask=part < parts, other=float("-inf"))
    named = tl.load(part_ids + at + part, mask=part < parts, other=2147483647)
    _, chosen = _first_of_largest(score, named)
    x = tl.load(logits + row * logits_stride + chosen)
    logprob = logprob_of(x, tops + at, sums + at, parts, BLOCK_PARTS, MASS_BITS)
    tl.store(ids + row, chosen)
    tl.store(logprobs + row, logprob)


@triton.jit
def logprob_split(
    logits,
    tops,
    sums,
    logits_stride,
    parts,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    MASS_BITS: tl.constexpr,
):
    """One part of one row: its largest logit and sum of exponentials."""
    row = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    index = part * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(logits + row * logits_stride + index, mask=index < WIDTH, other=float("-inf"))
    top = top_of(x)
    tl.store(tops + row * parts + part, top)
    tl.store(sums + row * parts + part, sum_of_exp(x, top, MASS_BITS))


@triton.jit
def logprob_combine(
    logits,
    targets,  # [R] i32, -1: none
    tops,
    sums,
    logprobs,  # [R] f32
    logits_stride,
    parts,
    BLOCK_PARTS: tl.constexpr,
    MASS_BITS: tl.constexpr,
):
    """The log-probability of the row's target, 0 where it has none."""
    row = tl.program_id(0).to(tl.int64)
    target = tl.load(targets + row)
    x = tl.load(logits + row * logits_stride + target, mask=target >= 0, other=0.0)
    at = row * parts
    logprob = logprob_of(x, tops + at, sums + at, parts, BLOCK_PARTS, MASS_BITS)
    tl.store(logprobs + row, tl.where(target >= 0, logprob, 0.0))
