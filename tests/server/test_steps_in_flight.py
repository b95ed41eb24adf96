"""What happens to requests while their step is in flight: cancelled, failed, refused, overtaken."""

from __future__ import annotations

import msgspec
import pytest
from fake_runtime import FakeLimits, FakeRuntime, generate
from late_runtime import LateRuntime, LateTicket, Owner

from lostwax.backends.runtime.ticket import Started, StepTicket
from lostwax.ir.contract.step import StepResult
from lostwax.ir.contract.step_plan import StepPlan
from lostwax.server.engine.failure_log import FailureLog
from lostwax.server.engine.loop import MAX_DEPTH, EngineCore, TooDeep
from lostwax.server.engine.messages import Cancel, Failed, Output, Submit
from lostwax.server.engine.options import PLAIN, EngineOptions


class _Refusing(LateRuntime):
    """Has no program for a step of seven tokens."""

    def submit(self, plan: StepPlan) -> LateTicket:
        if len(plan.tokens) == 7:
            raise ValueError("no program fits")
        return super().submit(plan)


class _Deep:
    """An engine over a late runtime, and what it said."""

    def __init__(
        self,
        runtime: type[LateRuntime] = LateRuntime,
        num_pages: int = 33,
        depth: int = 2,
        options: EngineOptions = PLAIN,
    ) -> None:
        limits = FakeLimits(num_pages=num_pages)
        self.runtime = runtime(limits, self._holder, is_shared=self._is_shared)
        self.said: list[str] = []
        log = FailureLog(self.said.append)
        self.core = EngineCore(self.runtime, options, log=log, depth=depth)
        self.events: list[Output | Failed] = []

    def _holder(self, seq: int) -> Owner:
        running = self.core.scheduler.running
        return next(Owner(req.name, id(req)) for req in running if req.seq == seq)

    def _is_shared(self, page: int) -> bool:
        return self.core.scheduler.pages.is_shared(page)

    def add(self, name: str, prompt: list[int], max_tokens: int = 5, *, priority: int = 0) -> None:
        """Submit a request and step once, which leaves its prompt in flight."""
        asked = Submit(request=name, prompt=prompt, max_tokens=max_tokens, ignore_eos=True)
        self.core.handle(msgspec.structs.replace(asked, priority=priority))
        self.step()

    def step(self) -> None:
        self.events += self.core.step()
        self.core.scheduler.check_integrity()

    def cancel(self, name: str) -> None:
        self.events += self.core.handle(Cancel(name))

    def finish(self) -> None:
        for _ in range(100):
            self.step()
        assert not self.core.has_work
        assert not self.runtime.wrong

    def ids(self, name: str) -> list[int]:
        mine = [e for e in self.events if isinstance(e, Output) and e.request == name]
        return [score.token for e in mine for score in e.tokens]

    def ends(self) -> dict[str, str]:
        ended = [e for e in self.events if isinstance(e, Failed) or e.finish is not None]
        assert len({e.request for e in ended}) == len(ended), "a request ended twice"
        return {e.request: e.code if isinstance(e, Failed) else str(e.finish) for e in ended}


def test_an_engine_is_not_deeper_than_serves_a_purpose() -> None:
    for depth in (-1, MAX_DEPTH + 1):
        with pytest.raises(TooDeep, match=f"depth {depth}: ask for 0 to {MAX_DEPTH}"):
            EngineCore(FakeRuntime(), depth=depth)


def test_at_depth_0_no_step_is_left_in_flight() -> None:
    deep = _Deep(depth=0)
    deep.add("a", [3, 1])
    assert not deep.runtime.queue
    assert deep.ids("a") == generate([3, 1], 1)


def test_steps_are_in_flight_up_to_the_depth_and_commit_in_order() -> None:
    deep = _Deep()
    prompts = {"a": [1], "b": [2], "c": [3]}
    for (name, prompt), in_flight in zip(prompts.items(), (1, 2, 2), strict=True):
        deep.add(name, prompt)
        assert len(deep.runtime.queue) == in_flight
    assert deep.ids("a") == generate([1], 1)
    assert deep.ids("b") == []
    deep.finish()
    assert {name: deep.ids(name) for name in prompts} == {
        name: generate(prompt, 5) for name, prompt in prompts.items()
    }


def test_a_request_cancelled_in_flight_hears_nothing_more_and_its_name_is_free() -> None:
    deep = _Deep()
    deep.add("a", [3, 1])
    deep.cancel("a")
    assert deep.core.scheduler.pages.num_free == deep.core.scheduler.pages.num_usable
    assert deep.core.has_work, "its step is still to be waited for"
    assert deep.ends() == {"a": "cancelled"}
    deep.events.clear()
    deep.add("a", [9] * 6)
    deep.finish()
    assert deep.ids("a") == generate([9] * 6, 5)
    assert deep.ends() == {"a": "length"}


def test_a_request_cancelled_in_flight_shifts_no_neighbours_answer() -> None:
    """Both are rows of one step; the rows of the first stay its own when it has ended."""
    deep = _Deep(depth=1)
    for name, prompt in {"first": [3, 4], "second": [5, 6, 7]}.items():
        asked = Submit(request=name, prompt=prompt, max_tokens=5, ignore_eos=True)
        deep.core.handle(asked)
    deep.step()
    assert [len(r.submit.prompt) for r in deep.core.scheduler.running] == [2, 3]
    deep.cancel("first")
    deep.finish()
    assert deep.ids("first") == []
    assert deep.ids("second") == generate([5, 6, 7], 5)


def test_pages_of_a_request_cancelled_in_flight_serve_the_next_at_once() -> None:
    deep = _Deep(num_pages=5)  # each of them needs three
    deep.add("first", [1] * 8)
    deep.cancel("first")
    deep.add("second", [2] * 8)
    assert len(deep.runtime.queue) == 2
    deep.finish()
    assert deep.ids("second") == generate([2] * 8, 5)


def test_who_was_preempted_in_flight_passes_the_first_once_its_step_is_back() -> None:
    """No page has come back meanwhile."""
    deep = _Deep(num_pages=1 + 14, options=EngineOptions(prefix_cache=False))
    deep.add("running", [1] * 32, 16)  # eight pages, and twelve at its end
    deep.add("small", [3, 1], priority=1)
    deep.add("first", [2] * 40)  # lacks room
    scheduler = deep.core.scheduler
    small = scheduler.find("small")
    while not deep.ids("small"):
        deep.step()
    assert small is not None
    scheduler.preempt(small)
    assert small.num_in_flight
    while "small" not in deep.ends():
        deep.step()
    assert "running" not in deep.ends(), "it waited for pages that it does not need"
    deep.finish()
    for name, prompt, count in (("running", [1] * 32, 16), ("small", [3, 1], 5)):
        assert deep.ids(name) == generate(prompt, count)


def test_a_failed_step_fails_those_behind_it_alone_and_is_said_once() -> None:
    deep = _Deep()
    deep.runtime.fail_in = 0
    deep.add("failed", [1])
    deep.add("behind", [2])
    prompt = [4] * 17
    for name in ("filling", "late"):  # which waits for the other's pages
        deep.core.handle(Submit(request=name, prompt=prompt, max_tokens=5, ignore_eos=True))
    deep.step()
    assert deep.ends() == dict.fromkeys(["failed", "behind", "filling"], "engine_error")
    deep.finish()
    assert deep.ids("late") == generate(prompt, 5)
    assert {name: deep.ids(name) for name in ("failed", "behind", "filling")} == {
        "failed": [], "behind": [], "filling": [],
    }  # fmt: skip
    assert len(deep.said) == 1
    assert "the extend step failed (request failed, behind, filling): DeviceFault" in deep.said[0]


def test_a_refused_step_fails_its_requests_and_leaves_those_in_flight() -> None:
    deep = _Deep(_Refusing)
    deep.add("good", [3, 1])
    deep.add("bad", [1] * 7)  # decode steps take turns with extend steps
    deep.step()
    assert deep.ends() == {"bad": "engine_error"}
    assert len(deep.runtime.queue) == 2
    deep.finish()
    assert deep.ids("good") == generate([3, 1], 5)
    assert len(deep.said) == 1


@pytest.mark.parametrize("max_tokens", [1, 5])
def test_who_would_write_a_page_that_a_step_in_flight_writes_waits_and_finds_it(
    max_tokens: int,
) -> None:
    deep = _Deep(depth=1)
    prompt = [3] * 9
    found = {"first": 0, "second": 8, "third": 8}
    for name in found:
        deep.add(name, prompt, max_tokens)
    deep.finish()
    outputs = [event for event in deep.events if isinstance(event, Output)]
    assert {event.request: event.cached_tokens for event in outputs} == found
    assert all(deep.ids(name) == generate(prompt, max_tokens) for name in found)


class _Marked:
    """A step that is done once somebody waits for it."""

    passed = False

    def wait(self) -> None:
        """It is done now."""
        self.passed = True


class _Ticketed(FakeRuntime):
    """Gives the product's own tickets; the second step's result cannot be read."""

    def __init__(self) -> None:
        super().__init__()
        self._last: StepTicket | None = None
        self._count = 0

    def submit(self, plan: StepPlan) -> StepTicket:
        self._count += 1
        number = self._count

        def start() -> Started:
            found = self.sequences.play(plan, self.run)

            def read() -> StepResult:
                if number == 2:
                    raise RuntimeError("planted")
                return found

            return Started(_Marked(), read)

        self._last = StepTicket(self._last, start)
        return self._last


def test_the_steps_behind_a_failed_one_are_heard_before_the_next_request() -> None:
    core = EngineCore(_Ticketed(), log=FailureLog(lambda _: None), depth=2)
    first = Submit(request="first", prompt=[1, 2, 3], max_tokens=12, ignore_eos=True)
    core.handle(first)
    events: list[Output | Failed] = []
    while core.has_work:
        events += core.step()
    assert isinstance(events[-1], Failed)
    core.handle(msgspec.structs.replace(first, request="second", max_tokens=3))
    while core.has_work:
        events += core.step()
    end = events[-1]
    assert isinstance(end, Output), end
    assert (end.request, end.finish) == ("second", "length")
