"""A request whose time is up ends, waiting or running, and its pages are free. Time is made up."""

from __future__ import annotations

import gc
import json
import math
import random
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from fake_runtime import FakeLimits, FakeRuntime, generate
from http_server import running

from lostwax.ir.contract.step_plan import StepPlan
from lostwax.server.engine.deadlines import FEW, Deadlines
from lostwax.server.engine.loop import MAX_DEPTH, EngineCore
from lostwax.server.engine.messages import TIMED_OUT, Cancel, Failed, Output, Submit
from lostwax.server.engine.options import PLAIN, EngineOptions
from lostwax.server.engine.request import Req
from lostwax.server.engine.runtime import Ticket
from lostwax.server.gateway.app import create_app
from lostwax.server.gateway.in_process import InProcessEngine
from lostwax.server.gateway.settings import Settings
from lostwax.server.gateway.tokenizer import IdCodec


class _Clocked(FakeRuntime):
    """A step takes a second."""

    now = 50.0

    def submit(self, plan: StepPlan) -> Ticket:
        self.now += 1.0
        return super().submit(plan)


class _Engine:
    """An engine over such a device, and what it said."""

    def __init__(self, options: EngineOptions = PLAIN, depth: int = 0) -> None:
        self.runtime = _Clocked(FakeLimits())
        self.core = EngineCore(self.runtime, options, depth=depth, clock=lambda: self.runtime.now)
        self.events: list[Output | Failed] = []

    def add(self, name: str, max_tokens: int, timeout_s: float | None, first: int = 5) -> None:
        asked = Submit(
            request=name, prompt=[first] * 3, max_tokens=max_tokens, ignore_eos=True,
            timeout_s=timeout_s,
        )  # fmt: skip
        self.events += self.core.handle(asked)

    def step(self) -> None:
        self.events += self.core.step()
        self.core.scheduler.check_integrity()

    def finish(self) -> None:
        while self.core.has_work:
            self.step()

    def tokens(self, name: str) -> list[int]:
        mine = [e for e in self.events if isinstance(e, Output) and e.request == name]
        return [score.token for event in mine for score in event.tokens]

    def ends(self) -> dict[str, str]:
        ended = [e for e in self.events if isinstance(e, Failed) or e.finish is not None]
        assert len({e.request for e in ended}) == len(ended), "a request ended twice"
        return {e.request: e.code if isinstance(e, Failed) else str(e.finish) for e in ended}


@pytest.mark.parametrize("depth", range(MAX_DEPTH + 1))
def test_a_running_request_ends_when_its_time_is_up_and_others_go_on(depth: int) -> None:
    engine = _Engine(depth=depth)
    engine.add("late", 40, 6.0)
    engine.add("other", 20, None, first=6)
    engine.finish()
    assert engine.ends() == {"late": TIMED_OUT, "other": "length"}
    assert engine.tokens("other") == generate([6] * 3, 20)
    told = engine.tokens("late")
    assert told == generate([5] * 3, len(told))
    assert 6 - depth - 1 <= len(told) <= 6, "a step a second, of which the last are not heard"
    pages = engine.core.scheduler.pages
    assert pages.num_free == pages.num_usable


def test_a_waiting_request_ends_when_its_time_is_up_and_never_runs() -> None:
    engine = _Engine(EngineOptions(max_running=1))
    engine.add("first", 30, None)
    engine.step()
    engine.add("waits", 3, 4.0, first=6)
    engine.add("behind", 3, None, first=7)
    while "waits" not in engine.ends():
        assert engine.runtime.now <= 51.0 + 4.0 + 1.0
        engine.step()
    assert engine.tokens("waits") == []
    engine.finish()
    assert engine.ends() == {"first": "length", "waits": TIMED_OUT, "behind": "length"}
    assert engine.tokens("behind") == generate([7] * 3, 3)


def test_who_ends_in_time_hears_of_no_deadline() -> None:
    engine = _Engine()
    engine.add("quick", 4, 5.0)
    engine.add("cancelled", 30, 5.0)
    engine.step()
    engine.events += engine.core.handle(Cancel("cancelled"))
    engine.finish()
    engine.runtime.now += 1000
    engine.add("next", 2, 3.0)
    engine.finish()
    assert engine.ends() == {"quick": "length", "cancelled": "cancelled", "next": "length"}
    assert engine.tokens("quick") == generate([5] * 3, 4)


def test_a_name_that_is_used_again_has_its_own_time() -> None:
    engine = _Engine()
    engine.add("r", 2, 10.0)
    engine.finish()
    engine.events.clear()
    engine.add("r", 30, 25.0)
    engine.finish()
    assert engine.ends() == {"r": TIMED_OUT}
    assert len(engine.tokens("r")) > 20


def test_a_preempted_request_keeps_its_time() -> None:
    engine = _Engine()
    engine.add("late", 40, 6.0)
    for _ in range(3):
        engine.step()
    (req,) = engine.core.scheduler.running
    engine.core.scheduler.preempt(req)
    engine.finish()
    assert engine.ends() == {"late": TIMED_OUT}
    assert engine.runtime.now <= 50 + 6 + 1


@pytest.mark.parametrize("timeout_s", [0.0, -1.0, math.nan])
def test_no_time_at_all_is_refused(timeout_s: float) -> None:
    engine = _Engine()
    engine.add("r", 3, timeout_s)
    assert engine.ends() == {"r": "invalid_value"}
    assert not engine.core.has_work


def test_deadlines_that_were_met_do_not_gather() -> None:
    deadlines = Deadlines()
    for number in range(10_000):
        req = Req(Submit(request=f"r{number}", prompt=[1], max_tokens=1))
        deadlines.add(req, 1e6 + number)
        req.ended = True
    assert len(deadlines) <= 2 * FEW
    assert deadlines.overdue(2e6) == []
    assert not deadlines


def test_dropping_what_ended_keeps_the_others_and_their_order() -> None:
    """Live and ended ones mixed, added in any order, over several times of dropping."""
    rng = random.Random(0)
    deadlines, live = Deadlines(), list[tuple[float, Req]]()
    for number in range(20 * FEW):
        req = Req(Submit(request=f"r{number}", prompt=[1], max_tokens=1))
        due = rng.random()
        deadlines.add(req, due)
        req.ended = rng.random() < 0.7
        live += [] if req.ended else [(due, req)]
    wanted = [req.name for due, req in sorted(live, key=lambda each: each[0]) if due <= 0.5]
    assert [req.name for req in deadlines.overdue(0.5)] == wanted
    assert len(wanted) > FEW


@contextmanager
def _served(timeout_s: float | None) -> Generator[httpx.Client]:
    runtime = _Clocked(FakeLimits(max_context=64))
    core = EngineCore(runtime, EngineOptions(max_running=1), clock=lambda: runtime.now)
    settings = Settings(request_timeout_s=timeout_s)
    app = create_app(InProcessEngine(core), IdCodec(), settings)
    with running(app) as url, httpx.Client(base_url=url, timeout=20) as client:
        yield client


def _body(**more: Any) -> dict[str, Any]:
    return {"prompt": [5] * 3, "max_tokens": 40, "ignore_eos": True, "temperature": 0} | more


def test_a_whole_answer_that_takes_too_long_is_a_504() -> None:
    with _served(10.0) as client:
        late = client.post("/v1/completions", json=_body())
        right = client.post("/v1/completions", json=_body(max_tokens=5))
    assert (late.status_code, right.status_code) == (504, 200)
    assert late.json()["error"] == {
        "message": "the request had not ended 10 s after it began to wait",
        "type": "server_error",
        "param": None,
        "code": TIMED_OUT,
    }


def test_a_stream_that_takes_too_long_ends_with_an_error_event() -> None:
    with _served(10.0) as client:
        answer = client.post("/v1/completions", json=_body(stream=True))
    assert answer.status_code == 200
    events = _data(answer.text.splitlines())
    assert "error" not in events[0]
    assert events[-1]["error"]["code"] == TIMED_OUT


def _data(lines: Sequence[str]) -> list[dict[str, Any]]:
    parts = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    return [json.loads(part) for part in parts if part != "[DONE]"]


def test_a_stream_without_a_token_has_that_event_alone() -> None:
    with _served(0.5) as client:  # a prompt of two steps
        answer = client.post("/v1/completions", json=_body(stream=True, prompt=[5] * 20))
    (event,) = _data(answer.text.splitlines())
    assert event["error"]["code"] == TIMED_OUT


def test_without_a_bound_a_request_takes_as_long_as_it_takes() -> None:
    with _served(None) as client:
        answer = client.post("/v1/completions", json=_body())
    assert answer.json()["usage"]["completion_tokens"] == 40


def test_nothing_is_kept_of_requests_that_ended_in_time() -> None:
    engine, num_before = _Engine(), _num_kept()  # other tests' engines may not be gone yet
    for i in range(3 * FEW):
        engine.add(f"r{i}", 2, timeout_s=3600.0)
        engine.finish()
    assert _num_kept() - num_before <= 3


def _num_kept() -> int:
    """Requests that anything in this process still holds."""
    gc.collect()
    return sum(type(each) is Req for each in gc.get_objects())
