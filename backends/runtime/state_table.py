"""The sequences' state in numpy: one array a field, a row a sequence. Knows no step's inputs."""

from __future__ import annotations

from typing import Any

import numpy as np

from lostwax.ir.contract.step_plan import StepPlan
from lostwax.ir.contract.step_state import NO_SEQ, STEP_STATE

NUMPY_DTYPES = {"i32": np.int32, "f32": np.float32}


class StateTable:
    """State of `max_reqs` sequences of at most `max_pages` pages each."""

    def __init__(self, max_reqs: int, max_pages: int) -> None:
        self.max_reqs = max_reqs
        self.max_pages = max_pages
        # arrays of two dtypes: [max_reqs + 1] or [max_reqs + 1, max_pages]
        self.fields: dict[str, Any] = {}
        for name, field in STEP_STATE.items():
            shape = (max_reqs + 1, *(max_pages for _ in field.dims))
            self.fields[name] = np.full(shape, field.padding, NUMPY_DTYPES[field.dtype])
        self.pages: Any = self.fields["pages"]
        self.page_marks = np.zeros(max_reqs + 1, np.int64)
        """One number a row of `pages`: no two contents, of any row at any time, have the same."""
        self._last_mark = 0

    def refusal(self, plan: StepPlan) -> str:
        """Why the plan does not suit this state, empty where it does. Nothing is changed."""
        for enter in plan.entering:
            if not NO_SEQ < enter.seq <= self.max_reqs:
                return f"sequence {enter.seq} enters; there are 1 to {self.max_reqs}"
            if len(enter.pages) > self.max_pages:
                return f"{len(enter.pages)} pages enter; a sequence has {self.max_pages} at most"
        if len(set(plan.seqs)) != len(plan.seqs):
            return "a sequence has rows at two places of the step"
        if min(plan.seqs) <= NO_SEQ or max(plan.seqs) > self.max_reqs:
            return f"rows of a sequence outside 1 to {self.max_reqs}"
        seqs = np.array(plan.seqs, np.int32)
        starts = np.array(plan.starts, np.int32)
        ends = starts + np.array(plan.counts, np.int32)
        lengths, limits = self.fields["length"][seqs], self.fields["limit"][seqs]
        if plan.entering:
            at = {seq: i for i, seq in enumerate(plan.seqs)}
            for enter in plan.entering:
                if enter.seq in at:
                    lengths[at[enter.seq]] = enter.length
                    limits[at[enter.seq]] = enter.limit
        if plan.entry != "draft" and (starts > lengths).any():
            return "rows start behind the cached ones, which leaves a hole"
        return "rows lie at or behind their sequence's limit" if (ends > limits).any() else ""

    def change(self, plan: StepPlan) -> None:
        """Write what the plan changes before its rows see the state."""
        for enter in plan.entering:
            for name, array in self.fields.items():
                if name != "pages":
                    array[enter.seq] = getattr(enter, name)
            row, count = self.pages[enter.seq], len(enter.pages)
            row[:count] = enter.pages
            row[count:] = STEP_STATE["pages"].padding
            self._mark(enter.seq)
        for new in plan.new_pages:
            self.pages[new.seq, new.index] = new.page
            self._mark(new.seq)

    def _mark(self, seq: int) -> None:
        self._last_mark += 1
        self.page_marks[seq] = self._last_mark
