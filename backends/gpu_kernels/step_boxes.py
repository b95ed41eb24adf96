"""Triton kernels that take a step's plan out of host memory and put its results there
(`ir/contract/step_layout.py`). Know nothing of what they carry.
"""

from __future__ import annotations

import triton
import triton.language as tl

from lostwax.backends.gpu_kernels.step import (
    FIRST,
    NUM_DRAFTING,
    NUM_LOGITS,
    NUM_SEQS,
    STAGE,
)

HEADER_SIZE = tl.constexpr(16)
NUM_TOKENS = tl.constexpr(6)
PLACES = tl.constexpr(4)  # a power of two, so that turns may wrap around


@triton.jit
def receive(
    box,  # [PLACES, place_size], in host memory
    turn,
    plan,
    place_size,
    seq_stride,
    logit_stride,
    NUM_BY_SEQ: tl.constexpr,
    NUM_BY_LOGIT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Take the step's plan out of its place: one program the header, the others a block of one of
    the arrays each, so that all of them wait for the host's memory at once."""
    array = tl.program_id(0) - 1
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    place = box + (tl.load(turn) & (PLACES - 1)).to(tl.int64) * place_size
    if array < 0:
        inside = at < HEADER_SIZE
        tl.store(plan + at, tl.load(place + at, mask=inside), mask=inside)
    else:
        by_seq = tl.load(place + NUM_SEQS) + 1
        by_logit = tl.load(place + NUM_LOGITS)
        of_seq = tl.minimum(array, NUM_BY_SEQ).to(tl.int64)
        of_logit = tl.minimum(tl.maximum(array - NUM_BY_SEQ, 0), NUM_BY_LOGIT).to(tl.int64)
        size = tl.load(place + NUM_TOKENS)
        size = tl.where(array < NUM_BY_SEQ + NUM_BY_LOGIT, by_logit, size)
        size = tl.where(array < NUM_BY_SEQ, by_seq, size)
        begin = place + HEADER_SIZE + of_seq * by_seq + of_logit * by_logit
        there = plan + HEADER_SIZE + of_seq * seq_stride + of_logit * logit_stride
        tl.store(there + at, tl.load(begin + at, mask=at < size), mask=at < size)


@triton.jit
def _copy(source, target, size, step, BLOCK: tl.constexpr):
    """A share of some numbers, as one of `step` programs."""
    for begin in range(tl.program_id(0) * BLOCK, size, step * BLOCK):
        at = begin + tl.arange(0, BLOCK)
        tl.store(target + at, tl.load(source + at, mask=at < size), mask=at < size)


@triton.jit
def send(
    header,
    turn,
    drafting,
    state_tokens,
    box,  # [PLACES, place_size], in host memory
    ids,  # [R], and what else a head gives, all as i32
    logprobs,
    target_logprobs,
    top_ids,
    top_logprobs,
    place_size,
    max_rows,
    R,
    FOLLOWING: tl.constexpr,
    TOP: tl.constexpr,
    WITH_SCORES: tl.constexpr,
    NUM_PROGRAMS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Put what a head gave into the step's place: its rows behind the body, a draft of each
    sequence behind a draft."""
    place = box + ((tl.load(turn) + PLACES - 1) & (PLACES - 1)).to(tl.int64) * place_size
    stage = tl.load(header + STAGE)
    first = tl.load(header + FIRST).to(tl.int64)
    height = tl.cast(max_rows, tl.int64)
    drafts = place + height * (3 + 2 * TOP)
    if stage == 0:
        rows = tl.minimum(tl.load(header + NUM_LOGITS) - first, R)
        _copy(ids, place + first, rows, NUM_PROGRAMS, BLOCK)
        _copy(logprobs, place + height + first, rows, NUM_PROGRAMS, BLOCK)
        if WITH_SCORES:
            top = place + height * 3 + first * TOP
            _copy(target_logprobs, place + height * 2 + first, rows, NUM_PROGRAMS, BLOCK)
            _copy(top_ids, top, rows * TOP, NUM_PROGRAMS, BLOCK)
            _copy(top_logprobs, top + height * TOP, rows * TOP, NUM_PROGRAMS, BLOCK)
    else:
        count = tl.load(header + NUM_DRAFTING)
        for begin in range(tl.program_id(0) * BLOCK, count, NUM_PROGRAMS * BLOCK):
            at = (begin + tl.arange(0, BLOCK)).to(tl.int64)
            seq = tl.load(drafting + at, mask=at < count, other=0).to(tl.int64)
            draft = tl.load(state_tokens + seq * FOLLOWING + stage, mask=at < count)
            tl.store(drafts + at * (FOLLOWING - 1) + stage - 1, draft, mask=at < count)
