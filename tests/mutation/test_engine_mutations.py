"""Ways to keep the books of steps in flight wrong: each must die in the machine of any traffic.

A mutant overrides a method of the engine or of the runtime under it; never the product's source.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import pytest
from engine_machine import EngineMachine
from fake_runtime import FakeLimits
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from late_runtime import LateRuntime, LateTicket

from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.messages import Cancel, Command, Failed, Output
from lostwax.server.engine.scheduler import ScheduledStep

SEARCH = settings(
    max_examples=1500,
    stateful_step_count=50,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


class MapsByTheRunningList(EngineCore):
    """Rows of a result go to the requests that run when it comes, not to those of its plan."""

    def _commit_oldest(self) -> list[Output | Failed]:
        oldest = self._in_flight[0]
        chunks = oldest.plan.chunks
        order = [c for req in self.scheduler.running for c in chunks if c.req is req]
        plan = replace(oldest.plan, chunks=tuple(order))
        self._in_flight[0] = replace(oldest, plan=plan)
        return super()._commit_oldest()


class MapsBySequence(EngineCore):
    """Rows of a result go to the requests in order of their rows in the state."""

    def _commit_oldest(self) -> list[Output | Failed]:
        oldest = self._in_flight[0]
        order = sorted(oldest.plan.chunks, key=lambda chunk: chunk.req.seq)
        self._in_flight[0] = replace(oldest, plan=replace(oldest.plan, chunks=tuple(order)))
        return super()._commit_oldest()


class NeverEntersAgain(EngineCore):
    """A request takes over what the one before it left in its row."""

    def _submit(self, plan: ScheduledStep) -> list[Output | Failed]:
        for chunk in plan.chunks:
            if chunk.req.seq in self._entered:
                chunk.req.has_entered = True
            self._entered.add(chunk.req.seq)
        return super()._submit(plan)

    @cached_property
    def _entered(self) -> set[int]:
        return set()


class CommitsBehindAFailure(EngineCore):
    """Steps behind one that failed are committed as if nothing had been."""

    def _abandon(self) -> list[ScheduledStep]:
        return []


class CommitsTheCancelled(EngineCore):
    """A request that was cancelled in flight gets the token that comes."""

    def handle(self, command: Command) -> list[Output | Failed]:
        req = self.scheduler.find(command.request) if isinstance(command, Cancel) else None
        events = super().handle(command)
        if req is not None:
            req.ended = False
        return events


class TwoStreams(LateRuntime):
    """The newest step runs first: an earlier one then writes pages that were given out again."""

    def take(self) -> LateTicket:
        self.fail_in = None  # a failure of its own would hide what this is about
        return self.queue.pop()


MUTANTS = (
    MapsByTheRunningList,
    MapsBySequence,
    NeverEntersAgain,
    CommitsBehindAFailure,
    CommitsTheCancelled,
)


def test_the_engine_without_mutation_survives_the_same_search() -> None:
    run_state_machine_as_test(EngineMachine, settings=settings(SEARCH, max_examples=100))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_wrong_books_are_noticed(mutant: type[EngineCore]) -> None:
    class Machine(EngineMachine):
        def make_core(self, runtime: LateRuntime, depth: int) -> EngineCore:
            return mutant(runtime, log=self.log, depth=depth)

    with pytest.raises(AssertionError):
        run_state_machine_as_test(Machine, settings=SEARCH)


def test_pages_that_a_cancelled_request_gives_back_in_flight_need_one_stream() -> None:
    class Machine(EngineMachine):
        def make_runtime(self, limits: FakeLimits) -> LateRuntime:
            return TwoStreams(limits, self.holder, self.lives)

    with pytest.raises(AssertionError, match=r"WrongSlot|KeyError"):
        run_state_machine_as_test(Machine, settings=SEARCH)
