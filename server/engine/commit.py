"""Reads a step's result back into its requests. Knows when a request ends, never how it ran."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from lostwax.ir.contract.step import StepResult
from lostwax.ir.contract.step_state import NO_SEQ, NO_TOKEN
from lostwax.server.engine.messages import Failed, Finish, Output, TokenScore
from lostwax.server.engine.request import Chunk, Req
from lostwax.server.engine.scheduler import ScheduledStep


@dataclass(slots=True)
class Drafting:
    """How drafts fared."""

    num_verified: int = 0
    """Steps of a request that had drafts."""
    num_drafted: int = 0
    num_accepted: int = 0


def commit(
    step: ScheduledStep, result: StepResult, eos_token_ids: tuple[int, ...], drafting: Drafting
) -> list[Output | Failed]:
    """Advance the step's requests that have not ended, preempted or not; one event for each that
    has news."""
    num_rows = sum(chunk.num_logits for chunk in step.chunks)
    picking = sum(chunk.picks > 0 for chunk in step.chunks) if step.drafts else 0
    if (len(result.ids), len(result.logprobs), len(result.drafts)) != (num_rows, num_rows, picking):
        raise ValueError(
            f"the step wanted {num_rows} logit rows and drafts of {picking} requests, and got"
            f" {len(result.ids)} ids, {len(result.logprobs)} logprobs and drafts of"
            f" {len(result.drafts)} from program {result.program!r}"
        )
    events: list[Output | Failed] = []
    first_row, drafts = 0, iter(result.drafts)
    for chunk in step.chunks:
        rows = range(first_row, first_row + chunk.num_logits)
        first_row = rows.stop
        made = next(drafts) if step.drafts and chunk.picks else []
        if chunk.req.ended:
            continue
        event = _commit_chunk(chunk, rows, result, eos_token_ids, drafting)
        chunk.req.drafts = made[: made.index(NO_TOKEN)] if NO_TOKEN in made else made
        if event is not None:
            events.append(event)
    return events


def _commit_chunk(
    chunk: Chunk,
    rows: range,
    result: StepResult,
    eos_token_ids: tuple[int, ...],
    drafting: Drafting,
) -> Output | Failed | None:
    req = chunk.req
    scores, tokens = list[TokenScore](), list[TokenScore]()
    guesses = req.drafts[: max(chunk.picks - 1, 0)]
    for row, (position, known) in zip(rows, _wanted(chunk), strict=True):
        top = _top(result, row, req.submit.top_logprobs)
        if known is not None:
            token, logprob, into = known, result.target_logprobs[row], scores
        else:
            token, logprob, into = result.ids[row], result.logprobs[row], tokens
        # An infinite logit is NaN in the ranking, where that of another token is not.
        if math.isnan(logprob) or any(math.isnan(ranked) for _, ranked in top):
            message = f"the model gave NaN for position {position}; check the checkpoint"
            return Failed(req.name, "model_error", message)
        into.append(TokenScore(token, logprob, top))
        if into is tokens:
            is_guessed = guesses[len(tokens) - 1 : len(tokens)] == [token]
            if _ends(req, token, eos_token_ids) or not is_guessed:
                break  # the rows behind saw a token that was not picked
    if req.seq != NO_SEQ:  # else it was preempted, and nothing of it is cached
        req.num_cached += chunk.count - chunk.picks + len(tokens)
    req.tokens += [score.token for score in tokens]
    if guesses:
        drafting.num_verified += 1
        drafting.num_drafted += len(guesses)
        drafting.num_accepted += len(tokens) - 1
    finish = _finish(req, eos_token_ids)
    if not (scores or tokens or finish):
        return None
    return Output(request=req.name, prompt_scores=scores, tokens=tokens, finish=finish)


def _wanted(chunk: Chunk) -> Iterator[tuple[int, int | None]]:
    """The position of each logit row, and the token behind it where it is known."""
    known = chunk.req.tokens
    for position in chunk.scored:
        yield position, known[position + 1]
    last = len(known) - 1
    for position in range(last, last + chunk.picks):
        yield position, None


def _top(result: StepResult, row: int, count: int) -> list[tuple[int, float]]:
    if count == 0:
        return []
    pairs = zip(result.top_ids[row], result.top_logprobs[row], strict=True)
    return [(token, logprob) for token, logprob in pairs if token >= 0][:count]


def _finish(req: Req, eos_token_ids: tuple[int, ...]) -> Finish | None:
    if req.num_cached < req.num_prompt and req.num_output == 0:
        return None
    if req.num_output > 0 and _ends(req, req.tokens[-1], eos_token_ids):
        return "stop"
    return "length" if req.num_output >= req.submit.max_tokens else None


def _ends(req: Req, token: int, eos_token_ids: tuple[int, ...]) -> bool:
    is_eos = token in eos_token_ids and not req.submit.ignore_eos
    return is_eos or token in req.submit.stop_ids
