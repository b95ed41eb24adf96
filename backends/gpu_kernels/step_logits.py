"""The Triton kernel that makes a head's inputs from the plan and the sequences' state
(`ir/contract/step_layout.py`). What they mean: `derive_logits` of `backends/runtime/derive.py`.
"""

from __future__ import annotations

import triton
import triton.language as tl

from lostwax.backends.gpu_kernels.arrival import settled
from lostwax.backends.gpu_kernels.step import (
    CURSOR,
    FIRST,
    IS_DECODE,
    NEXT_STAGE,
    NUM_DRAFTING,
    NUM_LOGITS,
    STAGE,
)


@triton.jit
def derive_logits(
    header,
    seqs,
    plan_q_starts,
    plan_rows,
    owners,
    plan_targets,
    plan_mask_rows,
    drafting,
    last_rows,
    state_length,
    state_num_prompt,
    state_temperature,
    state_top_k,
    state_top_p,
    state_min_p,
    state_seed,
    state_counted,
    state_repetition,
    state_frequency,
    state_presence,
    state_tokens,  # [max_reqs + 1, FOLLOWING]
    state_biased,
    state_min_outputs,
    logit_rows,  # [R], and the other inputs of a head
    temperature,
    seeds,
    counters,
    top_k,
    top_p,
    min_p,
    count_rows,
    recent,  # [R, RECENT]
    repetition,
    frequency,
    presence,
    bias_rows,
    mask_rows,
    targets,
    num_rows,  # [1]
    R,
    FOLLOWING: tl.constexpr,
    RECENT: tl.constexpr,
    BLOCK: tl.constexpr,
    SETTLE: tl.constexpr = 0,
):
    """One program for all rows: it also says where the step is, for this head and the next."""
    cursor = tl.load(header + CURSOR)
    next_stage = tl.load(header + NEXT_STAGE)
    stage = tl.load(header + STAGE)
    num_logits = tl.load(header + NUM_LOGITS)
    num_drafting = tl.load(header + NUM_DRAFTING)
    settled(SETTLE)
    stage = tl.where(cursor == 0, next_stage, stage)
    wanted = tl.where(stage == 0, num_logits, num_drafting)
    is_last = cursor + R >= wanted
    tl.store(header + FIRST, cursor)
    tl.store(header + STAGE, stage)
    tl.store(header + NEXT_STAGE, stage + 1)
    tl.store(header + CURSOR, tl.where(is_last, 0, cursor + R))
    tl.store(num_rows, tl.maximum(tl.minimum(wanted - cursor, R), 0))
    for begin in range(0, R, BLOCK):
        at = begin + tl.arange(0, BLOCK)
        inside = at < R
        number = cursor + at
        is_real = inside & (number < wanted)
        of_body = is_real & (stage == 0)
        of_draft = is_real & (stage != 0)
        owner = tl.load(owners + number, mask=of_body, other=0)
        seq = tl.load(seqs + owner, mask=of_body, other=0)
        seq += tl.load(drafting + number, mask=of_draft, other=0)
        row = tl.load(plan_rows + number, mask=of_body, other=0)
        begun = tl.load(plan_q_starts + owner, mask=of_body, other=0)
        last = tl.load(last_rows + number, mask=of_draft & (stage == 1), other=0)
        row = tl.where(stage == 0, row, tl.where(stage == 1, last, number))
        length = tl.load(state_length + seq, mask=is_real, other=0)
        # Logits are about the token behind the row's; a draft's about the one behind that.
        about = length + tl.where(stage == 0, row - begun + 1, stage)
        counter = about - tl.load(state_num_prompt + seq, mask=is_real, other=0)
        target = tl.load(plan_targets + number, mask=of_body, other=-1)
        picks = is_real & (target < 0)
        tl.store(logit_rows + at, tl.where(is_real, row, -1), mask=inside)
        counter = tl.maximum(counter, 0)
        tl.store(counters + at, tl.where(is_real, counter, 0), mask=inside)
        tl.store(targets + at, target, mask=inside)
        is_counted = tl.load(state_counted + seq, mask=picks, other=0) > 0
        tl.store(count_rows + at, tl.where(is_counted, seq, -1), mask=inside)
        # In a step that decodes the first token that follows is an output, and counted.
        follows = is_counted & ((stage > 0) | (tl.load(header + IS_DECODE) != 0))
        for draft in tl.static_range(RECENT):
            stands = follows & (draft + 1 < FOLLOWING) & (draft < about - length - 1)
            behind = seq.to(tl.int64) * FOLLOWING + draft + 1
            token = tl.load(state_tokens + behind, mask=stands, other=-1)
            tl.store(recent + at.to(tl.int64) * RECENT + draft, token, mask=inside)
        factor = tl.load(state_repetition + seq, mask=picks, other=1.0)
        tl.store(repetition + at, factor, mask=inside)
        often = tl.load(state_frequency + seq, mask=picks, other=0.0)
        tl.store(frequency + at, often, mask=inside)
        tl.store(presence + at, tl.load(state_presence + seq, mask=picks, other=0.0), mask=inside)
        is_biased = tl.load(state_biased + seq, mask=picks, other=0) > 0
        is_early = counter < tl.load(state_min_outputs + seq, mask=picks, other=0)
        own_bias = tl.where(is_biased, 2 * seq + is_early.to(tl.int32), -1)
        tl.store(bias_rows + at, own_bias, mask=inside)
        own_mask = tl.load(plan_mask_rows + number, mask=of_body, other=-1)
        tl.store(mask_rows + at, own_mask, mask=inside)
        warm = tl.load(state_temperature + seq, mask=picks, other=0.0)
        tl.store(temperature + at, warm, mask=inside)
        tl.store(top_k + at, tl.load(state_top_k + seq, mask=picks, other=0), mask=inside)
        tl.store(top_p + at, tl.load(state_top_p + seq, mask=picks, other=1.0), mask=inside)
        tl.store(min_p + at, tl.load(state_min_p + seq, mask=picks, other=0.0), mask=inside)
        tl.store(seeds + at, tl.load(state_seed + seq, mask=is_real, other=0), mask=inside)
