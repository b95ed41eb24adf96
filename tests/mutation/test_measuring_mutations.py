"""Ways to measure steps wrong, and to lose a bound or an option: each must be noticed.

A mutant overrides a method of the part that it spoils; never the product's source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import pytest
from engine_bounds import BUDGET_CHECKS, QUEUE_CHECKS
from engine_effects import CHANGED, EFFECTS
from share_trial import SHARE_CHECKS
from stall_trial import STALL_CHECKS
from step_times import CHECKS

from lostwax.server.engine import scheduler
from lostwax.server.engine.extend_budget import MIN_ROWS, ExtendBudget
from lostwax.server.engine.loop import MAX_DEPTH, EngineCore
from lostwax.server.engine.messages import Failed, Output
from lostwax.server.engine.options import PLAIN, EngineOptions
from lostwax.server.engine.prompt_rows import PromptRows
from lostwax.server.engine.request import Chunk, Req
from lostwax.server.engine.scheduled_step import ScheduledStep
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

    def rows_at(self, context: int, num_answers: int, *, is_mixed: bool) -> int:
        rows = super().rows_at(context, num_answers, is_mixed=is_mixed)
        return 2 * rows if rows == self._most else rows


class GivesNoRows(ExtendBudget):
    """None where no row fits."""

    def rows_at(self, context: int, num_answers: int, *, is_mixed: bool) -> int:
        rows = super().rows_at(context, num_answers, is_mixed=is_mixed)
        allowed = self._max_stall * self._decode_s
        return 0 if self._times.foretell(1, context, allowed) > allowed > 0 else rows


class GrowsBeforeAnAnswer(ExtendBudget):
    """What no decode step has told is taken to be a second."""

    def __init__(self, max_stall: float, most: int) -> None:
        super().__init__(max_stall, most)
        for _ in range(2):
            self.note_decode(1, 1.0)


class LooksAtNoNumber(ExtendBudget):
    """A decode step of any number of answers is as good as another."""

    def knows_decode(self, num_answers: int) -> bool:
        return self._decode_s > 0


class MixesAtNoTime(ExtendBudget):
    """A decode step follows a mixed step, too."""

    def rows_at(self, context: int, num_answers: int, *, is_mixed: bool) -> int:
        return super().rows_at(context, num_answers, is_mixed=False)


class LooksAtNoContext(ExtendBudget):
    """What fits short contexts is taken to fit longer ones."""

    def rows_at(self, context: int, num_answers: int, *, is_mixed: bool) -> int:
        return super().rows_at(1, num_answers, is_mixed=is_mixed)

    def note_extend(
        self, num_rows: int, context: int, seconds: float, *, is_even: bool = True
    ) -> None:
        super().note_extend(num_rows, 1, seconds, is_even=is_even)


@pytest.mark.parametrize(
    "mutant",
    [
        LooksAtNoNumber,
        LooksAtNoContext,
        MixesAtNoTime,
        GivesTheLeastToAnyStep,
        GrowsToAnyNumber,
        GivesNoRows,
        GrowsBeforeAnAnswer,
    ],
    ids=lambda mutant: mutant.__name__,
)
def test_rows_outside_their_bounds_are_noticed(mutant: type[ExtendBudget]) -> None:
    with pytest.raises((AssertionError, ZeroDivisionError)):  # the latter by steps without rows
        _all(BUDGET_CHECKS, lambda check: check(mutant))


class IgnoresTheBudget(PromptRows):
    """Prefill steps are as large as any, whoever waits."""

    def bound(self, answers: Sequence[Chunk], num_decoding: int, context: int) -> int | None:
        return None


class BeginsUnbounded(PromptRows):
    """A prompt's first step knows of no bound."""

    def share(
        self, running: Sequence[Req], answers: Sequence[Chunk], num_decoding: int, **given: Any
    ) -> list[Chunk]:
        has_begun = any(req.has_begun for req in running if req.is_prefilling)
        return super().share(running, answers, num_decoding if has_begun else 0, **given)


class PrefillsTwice(scheduler.Scheduler):
    """A second prefill step comes before the streams', and none has their rows."""

    num_prefills = 0

    def _may_mix(self, decoding: list[Req]) -> bool:
        return False

    def schedule(self) -> ScheduledStep | None:
        if self._owes_decode and self.num_prefills % 2:
            self._owes_decode = False
        step = super().schedule()
        self.num_prefills += step is not None and step.entry == "extend"
        return step


class ForgetsTheAnswers(scheduler.Scheduler):
    """Mixed steps count as such, and have no rows of answers."""

    def _next_rows(self, decoding: list[Req]) -> list[Chunk]:
        chunks = super()._next_rows(decoding)
        return chunks[:1] if any(req.is_prefilling for req in self.running) else chunks


class NeverDecodesAlone(scheduler.Scheduler):
    """What a decode step takes is measured once."""

    def schedule(self) -> ScheduledStep | None:
        self._num_mixed = min(self._num_mixed, 1)
        return super().schedule()


class GivesThePromptOneRow(PromptRows):
    """Streams never wait, and the prompt does."""

    def bound(self, answers: Sequence[Chunk], num_decoding: int, context: int) -> int | None:
        return 1


@pytest.mark.parametrize(
    "mutant",
    [
        PrefillsTwice,
        ForgetsTheAnswers,
        NeverDecodesAlone,
    ],
    ids=lambda mutant: mutant.__name__,
)
def test_longer_stalls_are_noticed(
    mutant: type[scheduler.Scheduler], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lostwax.server.engine.loop.Scheduler", mutant)
    with pytest.raises(AssertionError):
        _all(STALL_CHECKS, lambda check: check())


@pytest.mark.parametrize(
    "mutant",
    [
        IgnoresTheBudget,
        BeginsUnbounded,
        pytest.param(GivesThePromptOneRow, marks=pytest.mark.slow),
    ],
    ids=lambda mutant: mutant.__name__,
)
def test_a_budget_that_is_not_kept_is_noticed(
    mutant: type[PromptRows], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lostwax.server.engine.scheduler.PromptRows", mutant)
    with pytest.raises(AssertionError):
        _all(STALL_CHECKS, lambda check: check())


def _all_rows_left(eldest: Req, most: int) -> int:
    return min(eldest.num_known - eldest.num_planned, most)


def _no_rows(eldest: Req, most: int) -> int:
    return 0


@pytest.mark.parametrize("share", [_all_rows_left, _no_rows])
def test_another_share_of_the_eldest_is_noticed(
    share: Callable[[Req, int], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lostwax.server.engine.prompt_rows.share_of", share)
    with pytest.raises(AssertionError):
        _all(SHARE_CHECKS, lambda check: check())


def test_a_budget_that_looks_at_no_context_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lostwax.server.engine.scheduler.ExtendBudget", LooksAtNoContext)
    with pytest.raises(AssertionError):
        _all(STALL_CHECKS, lambda check: check())


@pytest.mark.parametrize("name", CHANGED)
def test_an_option_that_the_scheduler_does_not_hear_of_is_noticed(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Drops(scheduler.Scheduler):
        """Takes one option's default, whatever was asked for."""

        def __init__(self, limits: Any, options: EngineOptions, *, by_row: bool) -> None:
            dropped = replace(options, **{name: getattr(PLAIN, name)})
            super().__init__(limits, dropped, by_row=by_row)

    monkeypatch.setattr("lostwax.server.engine.loop.Scheduler", Drops)
    effect = EFFECTS[name]
    assert effect(replace(PLAIN, **{name: CHANGED[name]})) == effect(PLAIN)
