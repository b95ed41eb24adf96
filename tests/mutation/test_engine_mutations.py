"""Ways to keep the books of steps in flight wrong: each must die in the machine of any traffic.

A mutant overrides a method of the engine or of the runtime under it; never the product's source.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import pytest
from engine_machine import EngineMachine
from fake_runtime import FakeLimits
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test
from late_runtime import LateRuntime, LateTicket, Owner
from msgspec.structs import replace
from mutant_search import SEARCH

from lostwax.server.engine.loop import EngineBroken, EngineCore
from lostwax.server.engine.messages import Cancel, Command, Failed, Output, Submit
from lostwax.server.engine.options import PLAIN
from lostwax.server.engine.request import Req
from lostwax.server.engine.scheduled_step import ScheduledStep
from lostwax.server.engine.scheduler import Scheduler


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


class LosesWhatComesBackToThePreempted(EngineCore):
    """A preempted request takes over the token that comes back, and its client hears nothing."""

    def _commit_oldest(self) -> list[Output | Failed]:
        waiting = {req.name for req in self.scheduler.waiting}
        return [event for event in super()._commit_oldest() if event.request not in waiting]


class ForgetsWhatComesBackToThePreempted(EngineCore):
    """The client hears a token that the preempted request does not take over."""

    def _commit_oldest(self) -> list[Output | Failed]:
        known = {req.name: len(req.tokens) for req in self.scheduler.waiting}
        events = super()._commit_oldest()
        for req in self.scheduler.waiting:
            del req.tokens[known.get(req.name, len(req.tokens)) :]
        return events


class _OtherScheduler(EngineCore):
    scheduling: type[Scheduler]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.scheduler = self.scheduling(self._runtime.limits, PLAIN)


class _AdmitsAtOnce(Scheduler):
    def _admit(self) -> None:
        in_flight = [(req, req.num_in_flight) for req in self.waiting]
        for req, _ in in_flight:
            req.num_in_flight = 0
        super()._admit()
        for req, count in in_flight:
            req.num_in_flight = count


class EntersBeforeItsLastTicket(_OtherScheduler):
    """A preempted request runs again while steps of it are in flight."""

    scheduling = _AdmitsAtOnce


class _ScoresAgain(Scheduler):
    def preempt(self, req: Req) -> None:
        super().preempt(req)
        req.num_scored = 0


class ScoresAgain(_OtherScheduler):
    """A preempted request's prompt positions are scored twice."""

    scheduling = _ScoresAgain


class _OtherRequests(Scheduler):
    requests: type[Req]

    def add(self, first: Req, *others: Req) -> None:
        super().add(*[self.requests(req.submit) for req in (first, *others)])


class _NothingInFlight(Req):
    @property
    def num_planned(self) -> int:
        return self.num_cached


class _PlansOverNothingInFlight(_OtherRequests):
    requests = _NothingInFlight


class ForgetsRowsInFlight(_OtherScheduler):
    """The next step is planned as if those in flight had no rows."""

    scheduling = _PlansOverNothingInFlight


class _NoEnd(Req):
    @property
    def is_decoding(self) -> bool:
        return not self.is_prefilling and self.num_output < self.submit.max_tokens


class _PlansBehindTheEnd(_OtherRequests):
    requests = _NoEnd


class GoesOnPastTheEnd(_OtherScheduler):
    """A step is planned for a request whose last token is in flight."""

    scheduling = _PlansBehindTheEnd


class TwoStreams(LateRuntime):
    """The newest step runs first where its rows of the state are no earlier one's: that one then
    writes pages that were given out again."""

    def take(self) -> LateTicket:
        *earlier, newest = self.queue
        before = {seq for ticket in earlier for seq in ticket.plan.seqs}
        return super().take() if before & {*newest.plan.seqs} else self.queue.pop()


NOTICED = (AssertionError, EngineBroken)
"""By the machine, or because step after step read what it must not."""

MUTANTS = (
    MapsByTheRunningList,
    MapsBySequence,
    NeverEntersAgain,
    CommitsBehindAFailure,
    CommitsTheCancelled,
    LosesWhatComesBackToThePreempted,
    ForgetsWhatComesBackToThePreempted,
    EntersBeforeItsLastTicket,
    ScoresAgain,
    ForgetsRowsInFlight,
    GoesOnPastTheEnd,
)


def test_the_engine_without_mutation_survives_the_same_search() -> None:
    run_state_machine_as_test(EngineMachine, settings=settings(SEARCH, max_examples=100))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_wrong_books_are_noticed(mutant: type[EngineCore]) -> None:
    class Machine(EngineMachine):
        def make_core(self, runtime: LateRuntime, depth: int) -> EngineCore:
            return mutant(runtime, log=self.log, depth=depth)

    with pytest.raises(NOTICED):
        run_state_machine_as_test(Machine, settings=SEARCH)


def _reuse_pages_in_flight(runtime: type[LateRuntime]) -> list[str]:
    """A request is cancelled in flight, and the next gets its pages, but another row of the state.

    What steps found wrong afterwards.
    """
    core: EngineCore

    def holder(seq: int) -> Owner:
        return next(Owner(r.name, 0) for r in core.scheduler.running if r.seq == seq)

    late = runtime(FakeLimits(num_pages=6), holder)
    core = EngineCore(late, depth=2)
    core.handle(Submit(request="short", prompt=[1], max_tokens=1))
    core.step()
    late.run_next()
    core.handle(Submit(request="cancelled", prompt=[2] * 8, max_tokens=5))
    core.step()
    core.handle(Cancel("cancelled"))
    core.handle(Submit(request="next", prompt=[3] * 12, max_tokens=5, ignore_eos=True))
    core.step()
    assert [ticket.plan.seqs for ticket in late.queue] == [(2,), (1,)]
    late.run_next()
    late.run_next()
    while core.has_work:
        core.step()
    return late.wrong


def test_pages_that_a_cancelled_request_gives_back_in_flight_need_one_stream() -> None:
    assert not _reuse_pages_in_flight(LateRuntime)
    assert "WrongSlot" in _reuse_pages_in_flight(TwoStreams)[0]
