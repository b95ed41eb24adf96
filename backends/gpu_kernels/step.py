"""Triton kernels of the step around the layers, over the plan and the sequences' state in device
memory (`ir/contract/step_layout.py`). What they mean: `backends/runtime/step_rows.py`.

Launches run one after another, so that a kernel sees what the ones before it wrote; within one, no
program reads what another writes.
"""

from __future__ import annotations

import triton
import triton.language as tl

from lostwax.backends.gpu_kernels.arrival import settled

# Numbers of the header, in its order.
NUM_SEQS = tl.constexpr(0)
NUM_ROWS = tl.constexpr(1)
NUM_LOGITS = tl.constexpr(2)
NUM_DRAFTING = tl.constexpr(3)
DRAFTS = tl.constexpr(4)
IS_DECODE = tl.constexpr(5)
NEXT_STAGE = tl.constexpr(7)
STAGE = tl.constexpr(8)
CURSOR = tl.constexpr(9)
FIRST = tl.constexpr(10)


@triton.jit
def _pad_rows(rows, tokens, positions, slots, q_starts, num_rows, T, BLOCK: tl.constexpr):
    """Rows behind the step's, and what begins its lists."""
    tl.store(q_starts, 0)
    tl.store(num_rows, rows)
    for begin in range(rows, T, BLOCK):
        row = begin + tl.arange(0, BLOCK)
        inside = row < T
        tl.store(tokens + row, -1, mask=inside)
        tl.store(positions + row, -1, mask=inside)
        tl.store(slots + row, 0, mask=inside)


@triton.jit
def _store_rows(
    row, inside, token, position, limit, pages, tokens, positions, slots, PAGE_TOKENS: tl.constexpr
):
    """Rows of one sequence; how many of them have a token."""
    is_real = inside & (token >= 0) & (position < limit)
    page = tl.load(pages + position // PAGE_TOKENS, mask=is_real, other=0)
    slot = page * PAGE_TOKENS + position % PAGE_TOKENS
    tl.store(tokens + row, tl.where(is_real, token, -1), mask=inside)
    tl.store(positions + row, tl.where(is_real, position, -1), mask=inside)
    tl.store(slots + row, tl.where(is_real, slot, 0), mask=inside)
    return tl.sum(is_real.to(tl.int32), axis=0)


@triton.jit
def _store_lists(
    b, is_real, end, kv_len, pages, q_starts, kv_lens, page_table, P, BLOCK: tl.constexpr
):
    """What a request has one of; padding has no pages."""
    tl.store(q_starts + b + 1, end)
    tl.store(kv_lens + b, kv_len)
    for begin in range(0, P, BLOCK):
        number = begin + tl.arange(0, BLOCK)
        page = tl.load(pages + number, mask=is_real & (number < P), other=0)
        tl.store(page_table + b.to(tl.int64) * P + number, page, mask=number < P)


@triton.jit
def derive(
    header,
    seqs,
    plan_q_starts,
    plan_tokens,
    state_pages,  # [max_reqs + 1, max_pages]
    state_length,
    state_limit,
    state_tokens,  # [max_reqs + 1, FOLLOWING]
    tokens,  # [T], and the other inputs of a body
    positions,
    slots,
    q_starts,  # [B + 1]
    kv_lens,  # [B]
    page_table,  # [B, P]
    num_rows,  # [1]
    turn,
    T,
    B,
    P,
    max_pages,
    FOLLOWING: tl.constexpr,
    PAGE_TOKENS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The inputs of an extend or decode body: one program a sequence, and one for the padding."""
    b = tl.program_id(0)
    rows = tl.load(header + NUM_ROWS)
    num_seqs = tl.load(header + NUM_SEQS)
    if b == B:
        tl.store(turn, tl.load(turn) + 1)
        _pad_rows(rows, tokens, positions, slots, q_starts, num_rows, T, BLOCK)
    elif b >= num_seqs:
        _store_lists(b, False, rows, 0, state_pages, q_starts, kv_lens, page_table, P, BLOCK)
    else:
        seq = tl.load(seqs + b).to(tl.int64)
        pages = state_pages + seq * max_pages
        limit = tl.load(state_limit + seq)
        start = tl.load(state_length + seq)
        first = tl.load(plan_q_starts + b)
        end = tl.load(plan_q_starts + b + 1)
        is_decode = tl.load(header + IS_DECODE) != 0
        held = 0
        for begin in range(first, end, BLOCK):
            row = begin + tl.arange(0, BLOCK)
            inside = row < end
            at = row - first
            brought = tl.load(plan_tokens + row, mask=inside & (not is_decode), other=-1)
            follows = inside & is_decode & (at < FOLLOWING)
            following = tl.load(state_tokens + seq * FOLLOWING + at, mask=follows, other=-1)
            held += _store_rows(
                row, inside, tl.where(is_decode, following, brought), start + at, limit,
                pages, tokens, positions, slots, PAGE_TOKENS,
            )  # fmt: skip
        kv_len = start + held
        _store_lists(b, True, end, kv_len, pages, q_starts, kv_lens, page_table, P, BLOCK)


@triton.jit
def derive_draft(
    header,
    seqs,
    plan_q_starts,
    starts,
    drafting,
    last_rows,
    draft_tokens,
    state_pages,  # [max_reqs + 1, max_pages]
    state_length,
    state_limit,
    state_tokens,  # [max_reqs + 1, FOLLOWING]
    tokens,  # [T], and the other inputs of a body
    positions,
    slots,
    q_starts,  # [B + 1]
    kv_lens,  # [B]
    page_table,  # [B, P]
    hidden_rows,  # [T]
    num_rows,  # [1]
    T,
    B,
    P,
    max_pages,
    FOLLOWING: tl.constexpr,
    PAGE_TOKENS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The same of a draft body: the first draft sees all rows, the next ones a row a sequence that
    picks."""
    b = tl.program_id(0)
    stage = tl.load(header + NEXT_STAGE)
    is_first = stage <= 1
    num_seqs = tl.load(header + tl.where(is_first, NUM_SEQS, NUM_DRAFTING))
    rows = tl.load(header + tl.where(is_first, NUM_ROWS, NUM_DRAFTING))
    if b == B:
        _pad_rows(rows, tokens, positions, slots, q_starts, num_rows, T, BLOCK)
        for begin in range(rows, T, BLOCK):
            row = begin + tl.arange(0, BLOCK)
            tl.store(hidden_rows + row, -1, mask=row < T)
    elif b >= num_seqs:
        _store_lists(b, False, rows, 0, state_pages, q_starts, kv_lens, page_table, P, BLOCK)
    else:
        seq = tl.load(tl.where(is_first, seqs, drafting) + b).to(tl.int64)
        pages = state_pages + seq * max_pages
        limit = tl.load(state_limit + seq)
        next_start = tl.minimum(tl.load(state_length + seq) + stage - 2, limit)
        start = tl.where(is_first, tl.load(starts + b), next_start)
        first = tl.where(is_first, tl.load(plan_q_starts + b), b)
        end = tl.where(is_first, tl.load(plan_q_starts + b + 1), b + 1)
        draft = tl.load(state_tokens + seq * FOLLOWING + tl.maximum(stage - 1, 0))
        held = 0
        for begin in range(first, end, BLOCK):
            row = begin + tl.arange(0, BLOCK)
            inside = row < end
            behind = tl.load(draft_tokens + row, mask=inside & is_first, other=-1)
            last = tl.load(last_rows + row, mask=inside & (stage == 2), other=0)
            tl.store(hidden_rows + row, tl.where(stage == 2, last, row), mask=inside)
            held += _store_rows(
                row, inside, tl.where(is_first, behind, draft), start + row - first, limit,
                pages, tokens, positions, slots, PAGE_TOKENS,
            )  # fmt: skip
        kv_len = start + held
        _store_lists(b, True, end, kv_len, pages, q_starts, kv_lens, page_table, P, BLOCK)


@triton.jit
def advance(
    header,
    seqs,
    plan_q_starts,
    logit_starts,
    picks,
    behind,
    plan_tokens,
    starts,
    drafting,
    last_rows,
    draft_tokens,
    picked,
    state_length,
    state_limit,
    state_num_prompt,
    state_tokens,
    state_counted,
    counts,  # [max_reqs + 1, WIDTH]
    ids,  # [R]: what the head picked
    R,
    WIDTH: tl.constexpr,  # 0 where no row that is counted picks
    FOLLOWING: tl.constexpr,
    BLOCK_PICKS: tl.constexpr,
    BLOCK_SEQS: tl.constexpr,
    BLOCK: tl.constexpr,
    SETTLE: tl.constexpr = 0,
):
    """One program a sequence: behind the body's last head the drafts that hold, behind a draft's
    head the draft."""
    b = tl.program_id(0)
    stage = tl.load(header + STAGE)
    if stage > 0:
        first = tl.load(header + FIRST)
        if (b < tl.load(header + NUM_DRAFTING)) & (b >= first) & (b < first + R):
            seq = tl.load(drafting + b).to(tl.int64)
            own = state_tokens + seq * FOLLOWING + stage
            is_missing = tl.load(own - 1) < 0
            behind_limit = tl.load(state_length + seq) + stage >= tl.load(state_limit + seq)
            token = tl.load(ids + b - first)
            tl.store(own, tl.where(is_missing | behind_limit, -1, token))
    elif b < tl.load(header + NUM_SEQS):
        first = tl.load(header + FIRST)
        count = tl.load(picks + b)
        number = tl.arange(0, BLOCK_PICKS)
        logit = tl.load(logit_starts + b + 1) - count + number
        exists = number < count
        here = exists & (logit >= first) & (logit < first + R)
        id_here = tl.load(ids + logit - first, mask=here, other=-1)
        tl.store(picked + logit, id_here, mask=here)
        if first + R >= tl.load(header + NUM_LOGITS):
            earlier = tl.load(picked + logit, mask=exists & (logit < first), other=-1)
            token = tl.where(here, id_here, earlier)
            before_here = exists & (number > 0) & (logit > first)
            before = tl.load(ids + logit - 1 - first, mask=before_here, other=-1)
            before_earlier = exists & (number > 0) & (logit <= first)
            before = tl.where(
                before_earlier, tl.load(picked + logit - 1, mask=before_earlier, other=-1), before
            )
            seq = tl.load(seqs + b).to(tl.int64)
            own = state_tokens + seq * FOLLOWING
            draft = tl.load(own + number, mask=exists & (number > 0), other=-1)
            fails = exists & (number > 0) & ((draft < 0) | (draft != before))
            accepted = tl.min(tl.where(fails, number - 1, count - 1), axis=0)
            begin = tl.load(plan_q_starts + b)
            end = tl.load(plan_q_starts + b + 1)
            has_picked = count > 0
            last = tl.where(has_picked, end - count + accepted, end - 1)
            follows = tl.sum(tl.where(exists & (number == accepted), token, 0), axis=0)
            start = tl.load(state_length + seq)
            limit = tl.load(state_limit + seq)
            length = tl.minimum(start + last + 1 - begin, limit)
            if tl.load(header + DRAFTS) > 0:
                is_decode = tl.load(header + IS_DECODE) != 0
                reach = tl.maximum(length, tl.load(state_num_prompt + seq)) + 1
                # Where no draft will ever be wanted, the layer has seen none of the rows before.
                stop = tl.where(reach < limit, last, begin - 1)
                stands = tl.where(has_picked, follows, tl.load(behind + b))
                for chunk in range(begin, end, BLOCK):
                    row = chunk + tl.arange(0, BLOCK)
                    inner = row < last
                    brought = tl.load(plan_tokens + row + 1, mask=inner & (not is_decode), other=-1)
                    drafted = tl.load(
                        own + row - begin + 1,
                        mask=inner & is_decode & (row - begin + 1 < FOLLOWING),
                        other=-1,
                    )
                    seen = tl.where(row == last, stands, tl.where(is_decode, drafted, brought))
                    seen = tl.where(row <= stop, seen, -1)
                    tl.store(draft_tokens + row, seen, mask=row < end)
                tl.store(starts + b, start)
                if has_picked:
                    other = tl.arange(0, BLOCK_SEQS)
                    of_others = tl.load(picks + other, mask=other < b, other=0)
                    place = tl.sum((of_others > 0).to(tl.int32), axis=0)
                    tl.store(drafting + place, seq.to(tl.int32))
                    tl.store(last_rows + place, last)
            if WIDTH > 0:
                is_output = exists & (number <= accepted) & (tl.load(state_counted + seq) > 0)
                tl.atomic_add(counts + seq * WIDTH + token, 2, mask=is_output, sem="relaxed")
            settled(SETTLE)  # every thread has read what is written over here
            tl.store(state_length + seq, length)
            tail = number < FOLLOWING
            kept = tl.where((number == 0) & has_picked, follows, -1)
            tl.store(own + number, kept, mask=tail)
