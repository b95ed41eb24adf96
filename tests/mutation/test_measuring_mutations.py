"""Ways to measure steps wrong, and to lose a bound or an option: each must be noticed.

A mutant overrides a method of the part that it spoils; never the product's source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, TypeVar

import pytest
from engine_bounds import BUDGET_CHECKS, QUEUE_CHECKS
from engine_effects import CHANGED, EFFECTS
from step_times import CHECKS

from lostwax.server.engine import scheduler
from lostwax.server.engine.extend_budget import MIN_ROWS, ExtendBudget
from lostwax.server.engine.loop import MAX_DEPTH, EngineCore
from lostwax.server.engine.messages import Failed, Output
from lostwax.server.engine.options import PLAIN, EngineOptions
from lostwax.server.engine.request import Req
from lostwax.server.engine.scheduler import ScheduledStep
from lostwax.server.engine.waiting import LOOK_AHEAD, WaitingQueue


class MeasuresAcrossPauses(EngineCore):
    """A step behind an idle engine begins where the one before ended."""

    def _submit(self, plan: ScheduledStep) -> list[Output | Failed]:
        began_s = self._oldest_began_s
        events = super()._submit(plan)
        self._oldest_began_s = began_s or self._oldest_began_s
        return events


class MeasuresTheNewest(EngineCore):
    """A step is taken to begin when the newest in flight was submitted."""

    def _submit(self, plan: ScheduledStep) -> list[Output | Failed]:
        events = super()._submit(plan)
        self._oldest_began_s = self._clock()
        return events


class MeasuresTheStepsBefore(EngineCore):
    """A step in flight is taken to begin with the one before it."""

    def _commit_oldest(self) -> list[Output | Failed]:
        began_s = self._oldest_began_s
        events = super()._commit_oldest()
        self._oldest_began_s = began_s
        return events


class CountsTheWarmUp(EngineCore):
    """The first steps count as any."""

    def _commit_oldest(self) -> list[Output | Failed]:
        self._is_warming_up = False
        return super()._commit_oldest()


C = TypeVar("C")


def _all(checks: Iterable[C], run: Callable[[C], object]) -> None:
    for check in checks:
        run(check)


@pytest.mark.parametrize(
    "mutant",
    [MeasuresAcrossPauses, MeasuresTheNewest, MeasuresTheStepsBefore, CountsTheWarmUp],
    ids=lambda mutant: mutant.__name__,
)
def test_wrong_times_are_noticed(mutant: type[EngineCore]) -> None:
    with pytest.raises(AssertionError):
        _all(CHECKS, lambda check: [check(mutant, depth) for depth in range(MAX_DEPTH + 1)])


class LooksAtAll(WaitingQueue):
    """What a look costs follows the queue's length."""

    def passing(self) -> list[Req]:
        return sorted(self, key=lambda req: req.rank)[1:]


class LooksAtOneMore(LooksAtAll):
    """The first is not counted."""

    def passing(self) -> list[Req]:
        return super().passing()[: LOOK_AHEAD + 1]


class CountsWhoLeft(WaitingQueue):
    """Who was cancelled takes the place of one who waits."""

    def passing(self) -> list[Req]:
        heap = sorted(self._heap)
        first = next(i for i, entry in enumerate(heap) if self._is_live(entry))
        behind = heap[first + 1 : first + 1 + LOOK_AHEAD]
        return [entry[2] for entry in behind if self._is_live(entry)]


@pytest.mark.parametrize(
    "mutant", [LooksAtAll, LooksAtOneMore, CountsWhoLeft], ids=lambda mutant: mutant.__name__
)
def test_a_look_that_is_not_bounded_is_noticed(mutant: type[WaitingQueue]) -> None:
    with pytest.raises(AssertionError):
        _all(QUEUE_CHECKS, lambda check: check(mutant))


class GivesTheLeastToAnyStep(ExtendBudget):
    """More rows than a small step takes."""

    def __init__(self, max_stall: float, most: int) -> None:
        super().__init__(max_stall, max(most, MIN_ROWS))


class GrowsToAnyNumber(ExtendBudget):
    """Twice the rows, though a step does not take them."""

    def note_extend(self, num_rows: int, seconds: float) -> None:
        before = self.rows
        super().note_extend(num_rows, seconds)
        if before == self.rows == self._most and not self._held:
            self.rows = 2 * before


class GivesNoRows(ExtendBudget):
    """None where no row fits."""

    def note_extend(self, num_rows: int, seconds: float) -> None:
        allowed = self._allowed * (self._decode_s or 0.0)
        super().note_extend(num_rows, seconds)
        if seconds > allowed * num_rows:
            self.rows = 0


class GrowsByAnyStep(ExtendBudget):
    """A step that had fewer rows than it might lets the next have more."""

    def note_extend(self, num_rows: int, seconds: float) -> None:
        super().note_extend(max(num_rows, self.rows), seconds)


class GrowsBeforeAnAnswer(ExtendBudget):
    """What no decode step has told is taken to be a second."""

    def note_extend(self, num_rows: int, seconds: float) -> None:
        self._decode_s = self._decode_s or 1.0
        super().note_extend(num_rows, seconds)


@pytest.mark.parametrize(
    "mutant",
    [
        GivesTheLeastToAnyStep,
        GrowsToAnyNumber,
        GivesNoRows,
        GrowsByAnyStep,
        GrowsBeforeAnAnswer,
    ],
    ids=lambda mutant: mutant.__name__,
)
def test_rows_outside_their_bounds_are_noticed(mutant: type[ExtendBudget]) -> None:
    with pytest.raises(AssertionError):
        _all(BUDGET_CHECKS, lambda check: check(mutant))


@pytest.mark.parametrize("name", CHANGED)
def test_an_option_that_the_scheduler_does_not_hear_of_is_noticed(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Drops(scheduler.Scheduler):
        """Takes one option's default, whatever was asked for."""

        def __init__(self, limits: Any, options: EngineOptions) -> None:
            super().__init__(limits, replace(options, **{name: getattr(PLAIN, name)}))

    monkeypatch.setattr("lostwax.server.engine.loop.Scheduler", Drops)
    effect = EFFECTS[name]
    assert effect(replace(PLAIN, **{name: CHANGED[name]})) == effect(PLAIN)
