"""Tickets for runtimes of tests that run a step when it is submitted. Knows no runtime."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from step_oracle import Sequences, StepBatch

from lostwax.backends.runtime.mask_gate import MaskGate, Masks
from lostwax.backends.runtime.masked_rows import refusal_of_masked
from lostwax.backends.runtime.step_programs import StepError
from lostwax.ir.contract.masks import num_masks
from lostwax.ir.contract.step import StepResult
from lostwax.ir.contract.step_plan import Move, StepPlan
from lostwax.server.engine.runtime import Limits, Ticket


def require_submittable(plan: StepPlan, limits: Limits, waits: bool) -> None:
    """What a real runtime refuses of masks when a step is submitted; `waits`: the last one does."""
    if waits:
        raise StepError("the step before waits for masks")
    if refusal := refusal_of_masked(plan, num_masks(limits.max_reqs, limits.max_drafts)):
        raise StepError(refusal)


class _RanAtOnce:
    """The ticket of a step that has run, or failed, unless its rows wait for masks."""

    def __init__(self, runtime: RunsAtOnce, plan: StepPlan) -> None:
        self._runtime = runtime
        self._plan = plan
        self._gate = MaskGate(plan.num_masked, runtime.limits.vocab_size)
        self._outcome: StepResult | Exception | None = None
        if self._gate.is_open:
            self._run(None)

    @property
    def done(self) -> bool:
        """Whether it has run."""
        return self._outcome is not None

    def finish(self, masks: Masks) -> None:
        """Run the step, which its body alone would not tell from one that has not begun."""
        self._gate.take(masks)
        self._run(masks.copy())

    def result(self) -> StepResult:
        """What `run` returned or raised."""
        self._gate.require_open()
        assert self._outcome is not None
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome

    def _run(self, masks: Masks | None) -> None:
        try:
            self._runtime.move(self._plan.moves)
            self._outcome = self._runtime.sequences.play(self._plan, self._runtime.run, masks)
        except Exception as error:
            self._outcome = error


class RunsAtOnce(ABC):
    """Gives a runtime `submit` by its `run`, which the engine does not know."""

    overlaps = False
    pays_by_row = False
    sequences: Sequences
    """What its plans left."""
    limits: Any
    """The largest step, of a type that each runtime says."""
    _submitted: _RanAtOnce | None = None

    @abstractmethod
    def run(self, batch: StepBatch) -> StepResult:
        """Run a body and its head."""

    def move(self, moves: Sequence[Move]) -> None:
        """Copy pages to host memory and back."""
        assert not moves, "there is no host memory"

    def submit(self, plan: StepPlan) -> Ticket:
        """Run the step; what it raises, the ticket's result raises."""
        waits = self._submitted is not None and not self._submitted.done
        require_submittable(plan, self.limits, waits)
        self._submitted = _RanAtOnce(self, plan)
        return self._submitted
