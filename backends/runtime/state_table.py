"""The sequences' state in numpy: one array a field, a row a sequence. Knows no step's inputs."""

from __future__ import annotations

from typing import Any

import numpy as np

from lostwax.backends.runtime.masked_rows import refusal_of_masked
from lostwax.ir.contract.masks import num_masks
from lostwax.ir.contract.step_plan import StepPlan
from lostwax.ir.contract.step_state import NO_SEQ, STEP_STATE, Enter

NUMPY_DTYPES = {"i32": np.int32, "f32": np.float32}
NARROWING = ("top_k", "top_p", "min_p", "counted", "biased")
"""Fields by which outputs are picked otherwise than from all ids by the model's own logits."""


class StateTable:
    """State of `max_reqs` sequences of at most `max_pages` pages and `max_drafts` drafts each."""

    def __init__(self, max_reqs: int, max_pages: int, max_drafts: int = 0) -> None:
        self.max_reqs = max_reqs
        self.max_pages = max_pages
        self.max_drafts = max_drafts
        sizes = {"P": max_pages, "D": max_drafts + 1}
        # arrays of two dtypes: [max_reqs + 1] or [max_reqs + 1, P or D]
        self._arrays: dict[str, Any] = {}
        self.fields: dict[str, Any] = {}
        """The same arrays; those that `STEP_STATE` lets no step write cannot be written here."""
        for name, field in STEP_STATE.items():
            shape = (max_reqs + 1, *(sizes[dim] for dim in field.dims))
            self._arrays[name] = np.full(shape, field.padding, NUMPY_DTYPES[field.dtype])
            self.fields[name] = self._arrays[name].view()
            self.fields[name].flags.writeable = "step" in field.writers
        self.is_narrowed: Any = np.zeros(max_reqs + 1, np.bool_)
        """Rows in which one of NARROWING says something."""
        self.pages: Any = self.fields["pages"]
        self.page_marks = np.zeros(max_reqs + 1, np.int64)
        """One number a row of `pages`: no two contents, of any row at any time, have the same."""
        self._last_mark = 0

    def refusal(self, plan: StepPlan) -> str:
        """Why the plan does not suit this state, empty where it does. Nothing is changed."""
        for enter in plan.entering:
            if why := self._refusal_to_enter(enter):
                return why
        if len(set(plan.seqs)) != len(plan.seqs):
            return "a sequence has rows at two places of the step"
        if min(plan.seqs) <= NO_SEQ or max(plan.seqs) > self.max_reqs:
            return f"rows of a sequence outside 1 to {self.max_reqs}"
        if min(plan.counts) < 1:
            return "a sequence of the step has no rows"
        if plan.entry == "extend" and len(plan.tokens) != plan.num_rows:
            return f"{len(plan.tokens)} tokens come for {plan.num_rows} rows"
        if not 0 <= plan.drafts <= self.max_drafts:
            return f"{plan.drafts} drafts are asked for; there are {self.max_drafts} at most"
        return self._refusal_of_lists(plan) or self._refusal_of_rows(plan)

    def _refusal_of_lists(self, plan: StepPlan) -> str:
        """What must be as long as something else, or lie within it."""
        for new in plan.new_pages:
            if not (NO_SEQ < new.seq <= self.max_reqs and 0 <= new.index < self.max_pages):
                return f"sequence {new.seq} gets a page at {new.index} of {self.max_pages}"
        num_scored = sum(count for _, count in plan.scored)
        if len(plan.targets) != num_scored or num_scored > plan.num_logits:
            return f"{num_scored} rows of {plan.num_logits} have {len(plan.targets)} targets"
        if why := refusal_of_masked(plan, num_masks(self.max_reqs, self.max_drafts)):
            return why
        if plan.logits and plan.logits[-1][0] + plan.logits[-1][1] > plan.num_rows:
            return "logits are wanted of rows that the step has not"
        wanted = len(plan.seqs) - plan.num_picking if plan.drafts else 0
        if len(plan.behind) != wanted:
            return f"{len(plan.behind)} tokens stand behind the rows of {wanted} sequences"
        return ""

    def _refusal_to_enter(self, enter: Enter) -> str:
        if not NO_SEQ < enter.seq <= self.max_reqs:
            return f"sequence {enter.seq} enters; there are 1 to {self.max_reqs}"
        if len(enter.pages) > self.max_pages:
            return f"{len(enter.pages)} pages enter; a sequence has {self.max_pages} at most"
        if len(enter.tokens) > 1 + self.max_drafts:
            return f"{len(enter.tokens)} tokens follow; there are {1 + self.max_drafts} at most"
        if len({token for token, _ in enter.bias}) != len(enter.bias):
            return "a bias names an id twice"
        return ""

    def _refusal_of_rows(self, plan: StepPlan) -> str:
        """An extend step's rows are real ones; a decode step's may lie behind the limit."""
        if plan.entry == "decode":
            most = 1 + self.max_drafts
            return f"a sequence has more than {most} rows" if max(plan.counts) > most else ""
        seqs = np.array(plan.seqs, np.int32)
        lengths, limits = self.fields["length"][seqs], self.fields["limit"][seqs]
        if plan.entering:
            at = {seq: i for i, seq in enumerate(plan.seqs)}
            for enter in plan.entering:
                if enter.seq in at:
                    lengths[at[enter.seq]] = enter.length
                    limits[at[enter.seq]] = enter.limit
        ends = lengths + np.array(plan.counts, np.int32)
        if (ends > limits).any():
            return "rows lie at or behind their sequence's limit"
        return ""

    def change(self, plan: StepPlan) -> None:
        """Write what the plan changes before its rows see the state."""
        for enter in plan.entering:
            for name, array in self._arrays.items():
                if STEP_STATE[name].dims:
                    row, values = array[enter.seq], getattr(enter, name)
                    row[: len(values)] = values
                    row[len(values) :] = STEP_STATE[name].padding
                else:
                    array[enter.seq] = getattr(enter, name)
            self.is_narrowed[enter.seq] = any(
                getattr(enter, name) != STEP_STATE[name].padding for name in NARROWING
            )
            self._mark(enter.seq)
        for new in plan.new_pages:
            self._arrays["pages"][new.seq, new.index] = new.page
            self._mark(new.seq)

    def _mark(self, seq: int) -> None:
        self._last_mark += 1
        self.page_marks[seq] = self._last_mark
