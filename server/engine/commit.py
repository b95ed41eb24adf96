"""Reads a step's result back into its requests. Knows when a request ends, never how it ran."""

from __future__ import annotations

import math

from lostwax.ir.contract.step import StepResult
from lostwax.server.engine.messages import Failed, Finish, Output, TokenScore
from lostwax.server.engine.request import Chunk, Req
from lostwax.server.engine.scheduler import ScheduledStep


def commit(
    plan: ScheduledStep, result: StepResult, eos_token_ids: tuple[int, ...]
) -> list[Output | Failed]:
    """Advance the plan's requests that have not ended; one event for each that has news."""
    num_rows = sum(len(chunk.logit_positions) for chunk in plan.chunks)
    if len(result.ids) != num_rows or len(result.logprobs) != num_rows:
        raise ValueError(
            f"the step wanted {num_rows} logit rows and got {len(result.ids)} ids and"
            f" {len(result.logprobs)} logprobs from program {result.program!r}"
        )
    events: list[Output | Failed] = []
    first_row = 0
    for chunk in plan.chunks:
        rows = range(first_row, first_row + len(chunk.logit_positions))
        first_row = rows.stop
        if chunk.req.ended:
            continue
        event = _commit_chunk(chunk, rows, result, eos_token_ids)
        if event is not None:
            events.append(event)
    return events


def _commit_chunk(
    chunk: Chunk, rows: range, result: StepResult, eos_token_ids: tuple[int, ...]
) -> Output | Failed | None:
    req = chunk.req
    scores = list[TokenScore]()
    tokens = list[TokenScore]()
    guesses = iter(chunk.drafts)
    for position, row in zip(chunk.logit_positions, rows, strict=True):
        top = _top(result, row, req.submit.top_logprobs)
        if position + 1 < chunk.num_known:
            token, logprob, into = req.tokens[position + 1], result.target_logprobs[row], scores
        else:
            token, logprob, into = result.ids[row], result.logprobs[row], tokens
        # An infinite logit is NaN in the ranking, where that of another token is not.
        if math.isnan(logprob) or any(math.isnan(ranked) for _, ranked in top):
            message = f"the model gave NaN for position {position}; check the checkpoint"
            return Failed(req.name, "model_error", message)
        into.append(TokenScore(token, logprob, top))
        is_guessed = into is tokens and next(guesses, None) == token
        if into is tokens and (_ends(req, token, eos_token_ids) or not is_guessed):
            break  # the rows behind saw a token that was not picked
    num_rejected = len(chunk.drafts) - max(len(tokens) - 1, 0)
    req.num_cached = chunk.end - num_rejected  # what lies behind in the pages is written over
    req.tokens += [score.token for score in tokens]
    req.drafts = []
    finish = _finish(req, eos_token_ids)
    if not (scores or tokens or finish):
        return None
    return Output(request=req.name, prompt_scores=scores, tokens=tokens, finish=finish)


def _top(result: StepResult, row: int, count: int) -> list[tuple[int, float]]:
    if count == 0:
        return []
    pairs = zip(result.top_ids[row], result.top_logprobs[row], strict=True)
    return [(token, logprob) for token, logprob in pairs if token >= 0][:count]


def _finish(req: Req, eos_token_ids: tuple[int, ...]) -> Finish | None:
    if req.is_prefilling:
        return None
    if req.num_output > 0 and _ends(req, req.tokens[-1], eos_token_ids):
        return "stop"
    return "length" if req.num_output >= req.submit.max_tokens else None


def _ends(req: Req, token: int, eos_token_ids: tuple[int, ...]) -> bool:
    is_eos = token in eos_token_ids and not req.submit.ignore_eos
    return is_eos or token in req.submit.stop_ids
