"""What the engine does to warm up is in none of its numbers, and tells what prefill steps take."""

from __future__ import annotations

import math

import pytest
from fake_runtime import FakeLimits, FakeRuntime
from msgspec.structs import replace
from stall_trial import DECODE_S, TimedRuntime
from step_oracle import StepBatch

from lostwax.ir.contract.step import StepResult
from lostwax.ir.contract.step_plan import StepPlan
from lostwax.server.engine.commit import Drafting
from lostwax.server.engine.extend_budget import MIN_ROWS
from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.messages import Submit
from lostwax.server.engine.options import SERVED, EngineOptions
from lostwax.server.engine.runtime import Ticket
from lostwax.server.engine.warm_up import MOST_S, SETTLED


def test_a_warm_engine_has_counted_nothing() -> None:
    runtime = FakeRuntime(FakeLimits(max_drafts=2))
    core = EngineCore(runtime)
    before, num_pages = core.stats, core.scheduler.pages.num_usable
    core.warm_up()
    assert {batch.entry for batch in runtime.batches} == {"extend", "decode", "draft"}
    kept = core.stats.pages_idle
    assert core.stats == replace(before, pages_idle=kept, pages_blank=num_pages - kept)
    assert core.drafting == Drafting()


def _warm(runtime: TimedRuntime, options: EngineOptions = SERVED) -> EngineCore:
    core = EngineCore(runtime, options, clock=lambda: runtime.now)
    core.warm_up()
    return core


class _Idle(TimedRuntime):
    """A step of one row begins where nothing runs: the host's part counts with it."""

    def _extend_s(self, plan: StepPlan) -> float:
        return super()._extend_s(plan) + (plan.num_rows == 1) * 5 * DECODE_S


@pytest.mark.parametrize("depth", [0, 1])
def test_a_warm_engine_gives_the_first_prompt_as_many_rows_as_fit(depth: int) -> None:
    """Beside a stream; a cold one tries fewer first."""
    for is_warm in (False, True):
        runtime = _Idle(0.00005, max_tokens=256)
        core = EngineCore(runtime, SERVED, depth=depth, clock=lambda r=runtime: r.now)
        if is_warm:
            core.warm_up()
        core.handle(Submit(request="stream", prompt=[3], max_tokens=50, ignore_eos=True))
        while core.stats.segments["decode"] < 8:
            core.step()
        runtime.plans.clear()
        core.handle(Submit(request="prompt", prompt=[5] * 600, max_tokens=1))
        while core.scheduler.find("prompt"):
            core.step()
        rows = [plan.num_rows for plan in runtime.plans if plan.entry == "extend"]
        assert rows[0] == (256 if is_warm else MIN_ROWS)


def test_nothing_stays_of_the_prompt_beside_an_answer() -> None:
    core = _warm(TimedRuntime(0.00005))
    assert not core.has_work
    assert core.stats == _warm(TimedRuntime(0.00005), EngineOptions()).stats
    assert core.scheduler.pages.num_free == core.scheduler.pages.num_usable


def test_steps_that_do_not_grow_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lostwax.server.engine.warm_up.MOST_S", 10.0)
    runtime = TimedRuntime(0.0015)
    _warm(runtime)
    prompts = [plan for plan in runtime.plans if plan.entry == "extend" and plan.num_rows > 1]
    rows = [plan.num_rows for plan in prompts]
    assert rows[-SETTLED - 1 :] == (SETTLED + 1) * [MIN_ROWS]
    assert {*rows[: -SETTLED - 1]} == {MIN_ROWS, 2 * MIN_ROWS}, "twice the rows are tried"
    assert len(rows) < SETTLED + 10


def test_its_time_is_bounded() -> None:
    runtime = TimedRuntime(MOST_S / 40)
    _warm(runtime)
    assert runtime.now < 2.2 * MOST_S + 10 * DECODE_S


class _Late:
    """A ticket of a step that is done when it is waited for."""

    done = False

    def __init__(self, ticket: Ticket) -> None:
        self.result, self.finish = ticket.result, ticket.finish


class _LateRuntime(TimedRuntime):
    def submit(self, plan: StepPlan) -> Ticket:
        return _Late(super().submit(plan))


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_no_step_of_it_is_in_flight_afterwards(depth: int) -> None:
    runtime = _LateRuntime(0.00005)
    core = EngineCore(runtime, SERVED, depth=depth, clock=lambda: runtime.now)
    core.warm_up()
    assert not core.has_work
    assert core.scheduler.pages.num_free == core.scheduler.pages.num_usable
    assert core.scheduler.num_preempted == 0


class _Nan(TimedRuntime):
    """Its logits are NaN where a step has more rows than one."""

    def run(self, batch: StepBatch) -> StepResult:
        result = super().run(batch)
        if len(batch.tokens) > 1:
            result.logprobs = [math.nan for _ in result.logprobs]
        return result


def test_a_number_that_is_none_fails_it() -> None:
    with pytest.raises(RuntimeError, match="the warm-up step failed"):
        _warm(_Nan(0.00005))


@pytest.mark.parametrize("limits", [FakeLimits(max_reqs=1), FakeLimits(num_pages=2)])
def test_a_device_without_room_for_two_learns_nothing(limits: FakeLimits) -> None:
    runtime = FakeRuntime(limits)
    EngineCore(runtime, SERVED).warm_up()
    assert [batch.entry for batch in runtime.batches] == ["extend", "decode"]
