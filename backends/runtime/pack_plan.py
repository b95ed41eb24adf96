"""Writes a plan as the numbers that kernels read: `ir/contract/step_layout.py` has their order."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from lostwax.backends.runtime.step_rows import masks_of
from lostwax.ir.contract.step_layout import HEADER_SIZE, StepLayout
from lostwax.ir.contract.step_plan import Span, StepPlan

_NONE = -1


class Misplanned(ValueError):
    """A plan that the contract allows and kernels do not take."""


class PlanPacker:
    """Writes one plan after another. Decode steps of the same sequences differ in nothing that is
    written: the numbers of the last plan are kept."""

    def __init__(self, layout: StepLayout) -> None:
        self._layout = layout
        self._said: tuple[object, ...] = ()
        """All that the last plan's numbers follow from."""
        self._numbers: Any = np.empty(0, np.int32)
        self._picking = 0

    def pack(self, plan: StepPlan, out: Any) -> int:
        """Write a plan as `pack_plan` does."""
        said = (
            plan.entry, plan.seqs, plan.counts, plan.tokens, plan.logits, plan.scored,
            plan.targets, plan.masked, plan.drafts, plan.behind,
        )  # fmt: skip
        if said != self._said:
            numbers, self._picking = _numbers_of(plan, self._layout)
            self._numbers, self._said = np.array(numbers, np.int32), said
        out[: len(self._numbers)] = self._numbers
        return self._picking


def pack_plan(plan: StepPlan, layout: StepLayout, out: Any) -> int:
    """Write the plan into its place, i32 `out`; return how many sequences pick.

    A step without logit rows gets one that picks nothing: what accepts rows stands behind a head.
    Raises Misplanned where more rows of a sequence pick than tokens can follow.
    """
    return PlanPacker(layout).pack(plan, out)


def _numbers_of(plan: StepPlan, layout: StepLayout) -> tuple[list[int], int]:
    """What is written of a plan, and how many sequences pick."""
    # Lists: most arrays have few numbers, and a call of numpy's takes 1 to 5 us whatever it does.
    q_starts = [0, *accumulate(plan.counts)]
    logit_rows, targets = _rows(plan.logits), [_NONE] * plan.num_logits
    for row, target in zip(_rows(plan.scored), plan.targets, strict=True):
        targets[row] = target
    if not logit_rows:
        logit_rows, targets = [0], [0]
    num_logits = len(logit_rows)
    logit_starts = [bisect_left(logit_rows, start) for start in q_starts]
    owners: list[int] = []
    picks: list[int] = []
    for number, (first, end) in enumerate(pairwise(logit_starts)):
        owners += [number] * (end - first)
        picks.append(targets[first:end].count(_NONE))
    assert len(owners) == num_logits, "logits are wanted of rows that the step has not"
    if max(picks) > layout.max_drafts + 1:
        raise Misplanned(
            f"{max(picks)} rows of a sequence pick; {layout.max_drafts + 1} tokens follow at most"
        )
    header = (  # in the order of HEADER
        len(plan.seqs), plan.num_rows, num_logits, plan.num_picking, plan.drafts,
        plan.entry == "decode", len(plan.tokens),
    )  # fmt: skip
    values: list[int] = [*header, *[0] * (HEADER_SIZE - len(header))]
    # In the order of BY_SEQ, a number more than sequences each.
    values += (*plan.seqs, 0, *q_starts, *logit_starts, *picks, 0, *_behind(plan, picks), 0)
    masks = masks_of(plan, num_logits).tolist() if plan.masked else [_NONE] * num_logits
    values += (*logit_rows, *owners, *targets, *masks)  # in the order of BY_LOGIT
    values += plan.tokens
    return values, len(picks) - picks.count(0)


def _rows(spans: Sequence[Span]) -> list[int]:
    """The rows of all spans, in order."""
    return [row for first, count in spans for row in range(first, first + count)]


def _behind(plan: StepPlan, picks: Sequence[int]) -> list[int]:
    """The token behind the rows of each sequence that picks nothing, in a step with drafts."""
    behind = [_NONE] * len(picks)
    if plan.drafts:
        silent = [number for number, picked in enumerate(picks) if not picked]
        for number, token in zip(silent, plan.behind, strict=True):
            behind[number] = token
    return behind
