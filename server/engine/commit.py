"""Reads a step's result back into its requests. Knows when a request ends, never how it ran."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lostwax.ir.contract.step import StepResult
from lostwax.ir.contract.step_plan import StepPlan
from lostwax.ir.contract.step_state import NO_SEQ, NO_TOKEN
from lostwax.server.engine.messages import Failed, Finish, Output, Submit, TokenScore
from lostwax.server.engine.request import Chunk, Req
from lostwax.server.engine.scheduled_step import ScheduledStep


@dataclass(slots=True)
class Drafting:
    """How drafts fared."""

    num_verified: int = 0
    """Steps of a request that had drafts."""
    num_drafted: int = 0
    num_accepted: int = 0


def commit(
    step: ScheduledStep,
    told: StepPlan,
    result: StepResult,
    eos_token_ids: tuple[int, ...],
    drafting: Drafting,
) -> list[Output | Failed]:
    """Advance the step's requests that have not ended, preempted or not; one event for each that
    has news. `told` is the step as the runtime was told it."""
    num_rows = told.num_logits
    picking = told.num_picking if step.drafts else 0
    if (len(result.ids), len(result.logprobs), len(result.drafts)) != (num_rows, num_rows, picking):
        raise ValueError(
            f"the step wanted {num_rows} logit rows and drafts of {picking} requests, and got"
            f" {len(result.ids)} ids, {len(result.logprobs)} logprobs and drafts of"
            f" {len(result.drafts)} from program {result.program!r}"
        )
    events: list[Output | Failed] = []
    first_row, drafts = 0, iter(result.drafts)
    for chunk in step.chunks:
        first, first_row = first_row, first_row + len(chunk.scored) + chunk.picks
        made = next(drafts) if step.drafts and chunk.picks else None
        if chunk.req.ended:
            continue
        event = _commit_chunk(chunk, first, result, eos_token_ids, drafting, bool(step.drafts))
        if made is not None or chunk.req.drafts:
            chunk.req.drafts = _without_gaps(made or [])
        if event is not None:
            events.append(event)
    return events


def _commit_chunk(
    chunk: Chunk,
    row: int,
    result: StepResult,
    eos_token_ids: tuple[int, ...],
    drafting: Drafting,
    has_drafts: bool,
) -> Output | Failed | None:
    """Take over the chunk's logit rows, the first of which is `row`. `has_drafts` says whether the
    step made drafts for anybody."""
    req, submit = chunk.req, chunk.req.submit
    scores: list[TokenScore] = []
    tokens: list[TokenScore] = []
    num_before = len(req.tokens)
    for position in chunk.scored:
        token, logprob = req.tokens[position + 1], result.target_logprobs[row]
        score = _score(token, logprob, result, row, submit.top_logprobs)
        if score is None:
            return _not_a_number(req, position)
        scores.append(score)
        row += 1
    guesses, ends = req.drafts[: chunk.picks - 1], False
    for number in range(chunk.picks):
        token = result.ids[row]
        score = _score(token, result.logprobs[row], result, row, submit.top_logprobs)
        if score is None:
            return _not_a_number(req, num_before - 1 + number)
        tokens.append(score)
        ends = _ends(submit, token, eos_token_ids)
        if ends or number >= len(guesses) or guesses[number] != token:
            break  # the rows behind saw a token that was not picked
        row += 1
    if req.seq != NO_SEQ:  # else it was preempted, and nothing of it is cached
        req.add_cached(chunk, len(tokens), ends=ends, has_drafts=has_drafts)
    req.tokens += [score.token for score in tokens]
    if guesses:
        drafting.num_verified += 1
        drafting.num_drafted += len(guesses)
        drafting.num_accepted += len(tokens) - 1
    finish: Finish | None = "stop" if ends else None
    has_all = len(req.tokens) >= req.max_length
    # without a token to come, the prompt's rows are all there is to run
    if not ends and has_all and (tokens or req.num_cached >= req.num_prompt):
        finish = "length"
    if not (scores or tokens or finish):
        return None
    return Output(
        request=req.name,
        prompt_scores=scores,
        tokens=tokens,
        finish=finish,
        cached_tokens=req.cached_tokens or 0,
    )


def _without_gaps(drafts: list[int]) -> list[int]:
    """Those before the first that is missing."""
    return drafts[: drafts.index(NO_TOKEN)] if NO_TOKEN in drafts else drafts


def _score(
    token: int, logprob: float, result: StepResult, row: int, num_top: int
) -> TokenScore | None:
    """A token of a logit row, with the row's likeliest where they are wanted. None where a number
    is NaN; an infinite logit is NaN in the ranking, where that of another token is not."""
    if math.isnan(logprob):
        return None
    if not num_top:
        return TokenScore(token, logprob)
    pairs = zip(result.top_ids[row], result.top_logprobs[row], strict=True)
    top = [(ranked, its) for ranked, its in pairs if ranked >= 0][:num_top]
    return None if any(math.isnan(its) for _, its in top) else TokenScore(token, logprob, top)


def _not_a_number(req: Req, position: int) -> Failed:
    message = f"the model gave NaN for position {position}; check the checkpoint"
    return Failed(req.name, "model_error", message)


def _ends(submit: Submit, token: int, eos_token_ids: tuple[int, ...]) -> bool:
    is_eos = token in eos_token_ids and not submit.ignore_eos
    return is_eos or token in submit.stop_ids
