"""Draws a step whose sequences all enter with it, small enough for given programs. Runs nothing."""

from __future__ import annotations

import numpy as np

from lostwax.ir.contract.artifact import Limits
from lostwax.ir.contract.program import Program
from lostwax.ir.contract.step_plan import Span, StepPlan, append_span
from lostwax.ir.contract.step_state import NO_TOKEN, Enter

MAX_SEQS = 3
MAX_ROWS = 5
"""Rows of one sequence."""


def random_step(
    rng: np.random.Generator,
    body: Program,
    draft: Program | None,
    limits: Limits,
    ids: tuple[int, ...],
) -> StepPlan:
    """A plan for a body and, with drafts, a draft body. Limits are near, tokens are of `ids` or
    missing, some sequences pick and some do not, some rows that pick wait for masks."""
    buckets = [body.bucket, *([draft.bucket] if draft else [])]
    tokens, reqs = (min(getattr(b, name) for b in buckets) for name in ("tokens", "reqs"))
    count = int(rng.integers(1, min(MAX_SEQS, tokens, reqs, limits.max_reqs) + 1))
    following, is_decode = limits.max_drafts + 1, body.segment == "decode"
    room = min(limits.max_context, min(b.pages for b in buckets) * limits.page_tokens)
    most = min(MAX_ROWS, tokens // count, room, following if is_decode else MAX_ROWS)
    if is_decode:
        most = min(most, body.bucket.rows_a_req)
    drafts = int(rng.integers(0, following)) if draft else 0
    entering, counts, ends = list[Enter](), list[int](), list[int]()
    logits, behind, brought = list[Span](), list[int](), list[int]()
    for seq in rng.permutation(np.arange(1, limits.max_reqs + 1))[:count].tolist():
        rows = int(rng.integers(1, most + 1))
        enter = _enter(rng, seq, rows, room, limits, ids, is_decode=is_decode)
        picks = rows if is_decode else int(rng.integers(0, 2))
        append_span(logits, sum(counts) + rows - picks, picks)
        if drafts and not picks:
            behind.append(int(rng.choice(ids)))
        if not is_decode:
            brought += rng.choice(ids, rows).tolist()
        entering.append(enter)
        counts.append(rows)
        ends.append(min(enter.length + rows, enter.limit))
    masked = list[Span]()
    for number in range(sum(picks for _, picks in logits)):
        append_span(masked, number, int(rng.random() < 0.4))
    return StepPlan(
        entry="decode" if is_decode else "extend",
        head="sample" if masked else "pick",
        seqs=tuple(enter.seq for enter in entering),
        counts=tuple(counts),
        ends=tuple(ends),
        tokens=tuple(brought),
        entering=tuple(entering),
        logits=tuple(logits) or ((0, 1),),
        scored=() if logits else ((0, 1),),
        targets=() if logits else (0,),
        masked=tuple(masked),
        drafts=drafts,
        draft_head="sample" if masked else "pick",
        behind=tuple(behind),
    )


def _enter(
    rng: np.random.Generator,
    seq: int,
    rows: int,
    room: int,
    limits: Limits,
    ids: tuple[int, ...],
    *,
    is_decode: bool,
) -> Enter:
    """A sequence of at most `room` positions, whose limit may lie among its rows and drafts."""
    following = limits.max_drafts + 1
    length = int(rng.integers(0, room - rows + 1))
    least = length if is_decode else length + rows
    limit = int(rng.integers(least, min(room, least + rows + following) + 1))
    pages = -(-max(limit, 1) // limits.page_tokens)
    has_bias, has_end = rng.random(2) < 0.4
    follow = [NO_TOKEN if rng.random() < 0.1 else int(rng.choice(ids)) for _ in range(following)]
    return Enter(
        seq=seq,
        pages=tuple(rng.integers(1, 1 << 20, pages).tolist()),
        length=length,
        limit=limit,
        num_prompt=int(rng.integers(0, limit + 1)),
        temperature=float(rng.choice(np.array([0.0, 0.5, 1.25]))),
        top_k=int(rng.choice(np.array([0, 3]))),
        top_p=float(rng.choice(np.array([1.0, 0.75]))),
        min_p=float(rng.choice(np.array([0.0, 0.25]))),
        seed=int(rng.integers(-(2**31), 2**31)),
        tokens=tuple(follow),  # those of an extend step are brought, and these are not looked at
        bias=((int(rng.choice(ids)), 1.0),) if has_bias else (),
        ends=(int(rng.choice(ids)),) if has_end else (),
        min_outputs=int(rng.integers(0, limit + 1)),
        repetition=float(rng.choice(np.array([1.0, 1.25]))),
        frequency=float(rng.choice(np.array([0.0, 0.5]))),
        presence=float(rng.choice(np.array([0.0, -0.5]))),
        outputs=tuple(rng.choice(ids, int(rng.integers(0, 3))).tolist()),
    )
