"""Says a scheduled step as a plan: what the sequences' state does not hold. Knows no program."""

from __future__ import annotations

from lostwax.ir.contract.step_plan import NewPage, Span, StepPlan, append_span
from lostwax.ir.contract.step_state import NO_TOKEN, Enter
from lostwax.server.engine.request import Chunk, Req
from lostwax.server.engine.scheduler import ScheduledStep


def plan_step(step: ScheduledStep) -> StepPlan:
    """The plan of a step: chunks become consecutive rows, one logit row a wanted position."""
    tokens, behind, targets = list[int](), list[int](), list[int]()
    logits, scored = list[Span](), list[Span]()
    num_rows = num_logits = 0
    for chunk in step.chunks:
        known = chunk.req.tokens
        if step.entry == "extend":
            tokens += known[chunk.start : chunk.start + chunk.count]
            if step.drafts and not chunk.picks:
                behind.append(_behind(chunk))
        if chunk.scored:
            append_span(logits, num_rows + chunk.scored.start - chunk.start, len(chunk.scored))
            append_span(scored, num_logits, len(chunk.scored))
            targets += known[chunk.scored.start + 1 : chunk.scored.stop + 1]
        append_span(logits, num_rows + chunk.count - chunk.picks, chunk.picks)
        num_rows += chunk.count
        num_logits += len(chunk.scored) + chunk.picks
    return StepPlan(
        entry=step.entry,
        head=step.head,
        seqs=tuple([chunk.req.seq for chunk in step.chunks]),
        counts=tuple([chunk.count for chunk in step.chunks]),
        ends=tuple([chunk.end for chunk in step.chunks]),
        tokens=tuple(tokens),
        entering=tuple([_enter(c.req, c.start) for c in step.chunks if not c.req.has_entered]),
        new_pages=tuple([page for c in step.chunks for page in _new_pages(c.req)]),
        logits=tuple(logits),
        scored=tuple(scored),
        targets=tuple(targets),
        drafts=step.drafts,
        behind=tuple(behind),
    )


def _behind(chunk: Chunk) -> int:
    """The token behind the chunk's last row; the end of a prompt that nothing follows has none."""
    end = chunk.start + chunk.count
    return chunk.req.tokens[end] if end < chunk.req.num_known else NO_TOKEN


def _new_pages(req: Req) -> list[NewPage]:
    """Those that a request was given since it entered; who enters brings all of its own."""
    if not req.has_entered or req.num_told == len(req.pages):
        return []
    return [NewPage(req.seq, i, req.pages[i]) for i in range(req.num_told, len(req.pages))]


def _enter(req: Req, start: int) -> Enter:
    """The whole row of a request whose rows before `start` lie in its pages."""
    counts_prompt = req.submit.repetition_penalty != 1
    return Enter(
        seq=req.seq,
        pages=tuple(req.pages),
        length=start,
        limit=req.max_rows,
        num_prompt=req.num_prompt,
        temperature=req.submit.temperature,
        top_k=req.submit.top_k,
        top_p=req.submit.top_p,
        min_p=req.submit.min_p,
        seed=_as_int32(req.submit.seed),
        bias=tuple(req.submit.logit_bias.items()),
        ends=tuple(req.submit.held_ids),
        min_outputs=req.submit.min_tokens,
        repetition=req.submit.repetition_penalty,
        frequency=req.submit.frequency_penalty,
        presence=req.submit.presence_penalty,
        prompt=tuple(req.tokens[: req.num_prompt]) if counts_prompt else (),
        outputs=tuple(req.tokens[req.num_prompt :]) if req.submit.has_penalty else (),
    )


def _as_int32(seed: int) -> int:
    """The seed modulo 2^32, in the two's complement that step inputs carry."""
    return (seed + 2**31) % 2**32 - 2**31
