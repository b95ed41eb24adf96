"""Tickets for runtimes of tests that run a step when it is submitted. Knows no runtime."""

from __future__ import annotations

from abc import ABC, abstractmethod

from step_oracle import Sequences, StepBatch

from lostwax.ir.contract.step import StepResult
from lostwax.ir.contract.step_plan import StepPlan
from lostwax.server.engine.runtime import Ticket


class _RanAtOnce:
    """The ticket of a step that has run, or failed."""

    done = True

    def __init__(self, runtime: RunsAtOnce, plan: StepPlan) -> None:
        self._outcome: StepResult | Exception
        try:
            self._outcome = runtime.sequences.play(plan, runtime.run)
        except Exception as error:
            self._outcome = error

    def result(self) -> StepResult:
        """What `run` returned or raised."""
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome


class RunsAtOnce(ABC):
    """Gives a runtime `submit` by its `run`, which the engine does not know."""

    overlaps = False
    sequences: Sequences
    """What its plans left."""

    @abstractmethod
    def run(self, batch: StepBatch) -> StepResult:
        """Run a body and its head."""

    def submit(self, plan: StepPlan) -> Ticket:
        """Run the step; what it raises, the ticket's result raises."""
        return _RanAtOnce(self, plan)
