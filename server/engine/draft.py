"""Guesses the tokens behind a step's with the MTP layer, one draft step after another.

The first draft takes all rows of the step, so that the layer's caches hold every position; the next
ones take a row a request, which continues the hidden that the draft before left. Knows no sampling
rule: a guess is picked as the token itself will be, with the same noise, so it is as often right.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lostwax.ir.contract.step import StepResult
from lostwax.ir.contract.step_plan import StepPlan
from lostwax.server.engine.request import Req
from lostwax.server.engine.runtime import Runtime
from lostwax.server.engine.scheduler import ScheduledStep
from lostwax.server.engine.step import PlanBuilder


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows of one request in a draft step: row i continues hidden `first_hidden` + i.

    `tokens` stand behind `positions`. With `guesses`, the last row picks a draft.
    """

    req: Req
    positions: range
    tokens: Sequence[int]
    first_hidden: int
    guesses: bool


def draft(plan: ScheduledStep, runtime: Runtime, most: int) -> None:
    """Give every request of a committed step up to `most` drafts."""
    rows = list(_first(plan, most))
    while rows:
        result = runtime.submit(_plan(rows)).result()
        rows = list(_next(rows, result, most))


def _first(plan: ScheduledStep, most: int) -> Iterator[_Rows]:
    """The rows that were committed; those of rejected drafts are left out."""
    first_row = 0
    for chunk in plan.chunks:
        req = chunk.req
        if not req.ended and req.may_draft:
            behind = req.tokens[chunk.start + 1 : req.num_cached + 1]
            positions = range(chunk.start, req.num_cached)
            yield _Rows(req, positions, behind, first_row, req.num_drafts(most) > 0)
        first_row += chunk.length


def _next(rows: Sequence[_Rows], result: StepResult, most: int) -> Iterator[_Rows]:
    """Take the guesses; one row for each request that wants another."""
    ids, end = iter(result.ids), 0
    for each in rows:
        end += len(each.positions)
        if not each.guesses:
            continue
        req, token = each.req, next(ids)
        req.drafts.append(token)
        if len(req.drafts) < req.num_drafts(most):
            position = each.positions.stop
            yield _Rows(req, range(position, position + 1), [token], end - 1, guesses=True)


def _plan(rows: Sequence[_Rows]) -> StepPlan:
    sampled = any(each.req.submit.has_nucleus for each in rows if each.guesses)
    builder = PlanBuilder("draft", "sample" if sampled else "pick")
    for each in rows:
        builder.append_rows(each.req, each.positions.start, each.tokens)
        builder.continue_hidden(each.first_hidden, len(each.positions))
        if each.guesses:
            builder.want_logits(builder.num_rows - 1, 1)
    return builder.plan()
