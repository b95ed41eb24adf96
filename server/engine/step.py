"""Says a scheduled step as a plan: what the sequences' state does not hold. Knows no program."""

from __future__ import annotations

import msgspec

from lostwax.ir.contract.step_plan import NewPage, Span, StepPlan, append_span
from lostwax.ir.contract.step_state import NO_TOKEN, Enter
from lostwax.server.engine.request import Chunk, Req
from lostwax.server.engine.scheduled_step import ScheduledStep


def plan_step(step: ScheduledStep, masked: tuple[Span, ...] = ()) -> StepPlan:
    """The plan of a step: chunks become consecutive rows, one logit row a wanted position. Those
    in `masked` wait for masks."""
    # Annotated: list[int]() takes 0.2 us longer than [].
    seqs: list[int] = []
    counts: list[int] = []
    ends: list[int] = []
    entering: list[Enter] = []
    new_pages: list[NewPage] = []
    for chunk in step.chunks:
        req = chunk.req
        seqs.append(req.seq)
        counts.append(chunk.count)
        ends.append(chunk.end)
        if not req.has_entered:
            entering.append(_enter(req, chunk.start))
        elif req.num_told < len(req.pages):
            new_pages += _new_pages(req)
    rows = _known_rows(step) if step.entry == "extend" else _Rows(logits=((0, sum(counts)),))
    return StepPlan(
        entry=step.entry,
        head=step.head,
        seqs=tuple(seqs),
        counts=tuple(counts),
        ends=tuple(ends),
        tokens=rows.tokens,
        entering=tuple(entering),
        new_pages=tuple(new_pages),
        moves=step.moves,
        logits=rows.logits,
        scored=rows.scored,
        targets=rows.targets,
        masked=masked,
        drafts=step.drafts,
        draft_head=step.draft_head if step.drafts else "pick",
        behind=rows.behind,
    )


class _Rows(msgspec.Struct, frozen=True):
    """What a plan says of a step's rows. Each row of a decode step picks, and has its token in the
    state."""

    logits: tuple[Span, ...]
    tokens: tuple[int, ...] = ()
    scored: tuple[Span, ...] = ()
    targets: tuple[int, ...] = ()
    behind: tuple[int, ...] = ()


def _known_rows(step: ScheduledStep) -> _Rows:
    """The rows of an extend step."""
    tokens, behind, targets = list[int](), list[int](), list[int]()
    logits, scored = list[Span](), list[Span]()
    num_logits = 0
    for chunk in step.chunks:
        known, first_row = chunk.req.tokens, len(tokens)
        tokens += known[chunk.start : chunk.start + chunk.count]
        if step.drafts and not chunk.picks:
            behind.append(_behind(chunk))
        if chunk.scored:
            append_span(logits, first_row + chunk.scored.start - chunk.start, len(chunk.scored))
            append_span(scored, num_logits, len(chunk.scored))
            targets += known[chunk.scored.start + 1 : chunk.scored.stop + 1]
        append_span(logits, first_row + chunk.count - chunk.picks, chunk.picks)
        num_logits += len(chunk.scored) + chunk.picks
    return _Rows(tuple(logits), tuple(tokens), tuple(scored), tuple(targets), tuple(behind))


def _behind(chunk: Chunk) -> int:
    """The token behind the chunk's last row; the end of a prompt that nothing follows has none."""
    end = chunk.start + chunk.count
    return chunk.req.tokens[end] if end < chunk.req.num_known else NO_TOKEN


def _new_pages(req: Req) -> list[NewPage]:
    """Those that a request was given since it entered; who enters brings all of its own."""
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
