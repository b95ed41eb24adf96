"""Ways to derive a step's inputs wrongly: each must die in the random histories.

A mutant overrides a method of the state, the buffers or the rows; never the product's source.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from derive_trial import DeriveTrial

from lostwax.backends.runtime.derive import StepInputs
from lostwax.backends.runtime.state_table import StateTable
from lostwax.backends.runtime.step_buffers import StepBuffers
from lostwax.backends.runtime.step_rows import StepRows
from lostwax.ir.contract.step_plan import StepPlan
from lostwax.ir.contract.step_state import STEP_STATE

HISTORIES = 60
STEPS = 12


def _play(trial: type[DeriveTrial]) -> None:
    for seed in range(HISTORIES):
        trial(random.Random(seed)).play(STEPS)


class _NoTail(StateTable):
    """Enter writes the pages, and leaves what lay behind them."""

    def change(self, plan: StepPlan) -> None:
        before = self.pages.copy()
        super().change(plan)
        pages = self._arrays["pages"]
        for enter in plan.entering:
            count = len(enter.pages)
            pages[enter.seq, count:] = before[enter.seq, count:]
        for new in plan.new_pages:
            pages[new.seq, new.index] = new.page


class NoTrashBehindThePages(DeriveTrial):
    table = _NoTail


class _NoMarkOfNewPages(StateTable):
    def change(self, plan: StepPlan) -> None:
        entered = {enter.seq for enter in plan.entering}
        before = self.page_marks.copy()
        super().change(plan)
        for new in plan.new_pages:
            if new.seq not in entered:
                self.page_marks[new.seq] = before[new.seq]


class NewPagesAreNotSeen(DeriveTrial):
    table = _NoMarkOfNewPages


class _CountsByTheLength(StepRows):
    """All rows of a request get the counter of its last one."""

    def __init__(self, plan: StepPlan, state: StateTable, page_tokens: int) -> None:
        super().__init__(plan, state, page_tokens)
        if plan.logits:
            values = self.inputs.values
            owners = np.repeat(np.arange(len(plan.seqs)), plan.counts)
            owner = owners[values["logit_rows"]]
            prompts = state.fields["num_prompt"][self.inputs.seqs[owner]]
            values["counters"] = np.maximum(values["kv_lens"][owner] - prompts, 0)


class CountsOutputsByTheLength(DeriveTrial):
    rows = _CountsByTheLength


class _ForgetsThePick(StepRows):
    """The length grows by the drafts that were accepted, and not by the pick behind them."""

    def advance(self, ids: Any) -> None:
        super().advance(ids)
        verified = self._rows.q_starts[1:] - self._rows.q_starts[:-1] > 1
        self._state.fields["length"][self._rows.seqs[verified]] -= 1


class TheLengthLacksThePick(DeriveTrial):
    rows = _ForgetsThePick


class _KeepsDrafts(StepRows):
    def advance(self, ids: Any) -> None:
        before = self._state.fields["tokens"].copy()
        super().advance(ids)
        self._state.fields["tokens"][:, 1:] = before[:, 1:]


class OldDraftsFollow(DeriveTrial):
    rows = _KeepsDrafts


class _DraftsBehindTheLimit(StepRows):
    def draft(self, ids: Any) -> Any:
        super().draft(ids)
        self._state.fields["tokens"][self._drafting, self._num_drafted] = ids
        return ids


class DraftsStandBehindTheLimit(DeriveTrial):
    rows = _DraftsBehindTheLimit


class _NoSlots(StepBuffers):
    def fill(self, inputs: StepInputs, rows: slice = slice(None)) -> None:
        slots = self._arrays.get("slots")
        before = None if slots is None else slots.copy()
        super().fill(inputs, rows)
        if before is not None and slots is not None:
            count = len(inputs.values["slots"])
            slots[count:] = before[count:]


class PaddingKeepsItsSlots(DeriveTrial):
    buffers = _NoSlots


class _OneHolder(StepBuffers):
    def fill(self, inputs: StepInputs, rows: slice = slice(None)) -> None:
        self.memory.holder = self
        super().fill(inputs, rows)


class TrustsTheTableOfAnotherBucket(DeriveTrial):
    buffers = _OneHolder


class _Reordered(StepRows):
    """The page table is that of the sequences in order of their rows."""

    def __init__(self, plan: StepPlan, state: StateTable, page_tokens: int) -> None:
        super().__init__(plan, state, page_tokens)
        self.inputs = replace(self.inputs, seqs=np.sort(self.inputs.seqs))


class ForgetsThatSequencesWereReordered(DeriveTrial):
    rows = _Reordered


MUTANTS = (
    NoTrashBehindThePages,
    NewPagesAreNotSeen,
    CountsOutputsByTheLength,
    TheLengthLacksThePick,
    OldDraftsFollow,
    DraftsStandBehindTheLimit,
    PaddingKeepsItsSlots,
    TrustsTheTableOfAnotherBucket,
    ForgetsThatSequencesWereReordered,
)


def test_derive_without_mutation_survives_the_same_histories() -> None:
    _play(DeriveTrial)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_wrong_inputs_are_noticed(mutant: type[DeriveTrial]) -> None:
    with pytest.raises(AssertionError):
        _play(mutant)


@pytest.mark.parametrize("name", STEP_STATE)
def test_a_field_that_enter_forgets_is_noticed(name: str) -> None:
    class Forgetful(StateTable):
        def change(self, plan: StepPlan) -> None:
            before = self.fields[name].copy()
            super().change(plan)
            for enter in plan.entering:
                self._arrays[name][enter.seq] = before[enter.seq]

    class Trial(DeriveTrial):
        table = Forgetful

    with pytest.raises((AssertionError, IndexError)):
        _play(Trial)
