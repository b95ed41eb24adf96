"""How many are asked, when and at a time; what a load does when its server fails or ends."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from lostwax.evals.load.arrivals import arrivals
from lostwax.evals.load.drive import MAX_UNREACHABLE_IN_ROW, Load, Measured, measure
from lostwax.evals.load.own_cost import OwnCost
from lostwax.evals.load.prompts import Prompt
from lostwax.evals.load.stream import AskFailed, Timing, Unreachable


@dataclass
class Server:
    """Answers after `takes_s`, or fails as `fails` says of a request's number."""

    takes_s: float = 0.0
    fails: Callable[[int], Exception | None] = lambda _: None
    asked_s: list[float] = field(default_factory=list[float])
    prompts: list[Prompt] = field(default_factory=list[Prompt])
    in_flight: int = 0
    max_in_flight: int = 0

    async def ask(self, prompt: Prompt) -> Timing:
        number = len(self.asked_s)
        self.asked_s.append(time.perf_counter())
        self.prompts.append(prompt)
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        try:
            await asyncio.sleep(self.takes_s)
        finally:
            self.in_flight -= 1
        if (fault := self.fails(number)) is not None:
            raise fault
        return Timing(0.1, 0.2, array("d"), 3, 2)


def prompts() -> Iterator[Prompt]:
    return (Prompt([number], 2) for number in itertools.count())


def run(server: Server, load: Load, told: Callable[[Measured], None] = lambda _: None) -> Measured:
    return asyncio.run(measure(server.ask, prompts(), load, told))


@pytest.mark.parametrize("concurrency", [1, 3, None])
def test_as_many_are_asked_as_prompts_and_no_more_at_a_time_than_may_be(
    concurrency: int | None,
) -> None:
    server = Server(takes_s=0.01)
    heard: list[int] = []
    found = run(
        server,
        Load(concurrency=concurrency, num_prompts=10),
        lambda so_far: heard.append(len(so_far.answers)),
    )
    assert len(found.answers) == len(server.asked_s) == 10
    assert [prompt.content for prompt in server.prompts] == [[n] for n in range(10)]
    assert server.max_in_flight == found.max_in_flight == (concurrency or 10)
    assert heard == list(range(1, 11))
    assert found.own.seconds >= 0.01 * 10 / (concurrency or 10)


def test_no_more_are_asked_at_a_time_than_connections_may_be_open() -> None:
    server = Server(takes_s=0.01)
    load = Load(num_prompts=20)
    found = asyncio.run(measure(server.ask, prompts(), load, max_open=6))
    assert len(found.answers) == 20
    assert server.max_in_flight == found.max_in_flight == 6


def test_requests_are_sent_when_they_arrive_and_not_before() -> None:
    server = Server(takes_s=0.02)
    start_s = time.perf_counter()
    found = run(server, Load(rate=100, num_prompts=30, seed=3))
    due = list(itertools.islice(arrivals(100, 3), 30))
    late = [at - start_s - d for at, d in zip(server.asked_s, due, strict=True)]
    assert min(late) >= 0
    assert sorted(late)[15] < 0.25, "most are sent soon, also on busy cores"
    assert found.own.seconds >= due[-1]


def test_a_request_that_waits_for_a_place_keeps_its_arrival() -> None:
    server = Server(takes_s=0.05)
    found = run(server, Load(rate=1000, concurrency=1, num_prompts=5))
    assert found.waits_s == sorted(found.waits_s), "each waits for all before it"
    assert found.waits_s[-1] > 0.15


def test_failures_are_counted_by_what_was_said_and_nothing_is_asked_again() -> None:
    def fails(number: int) -> Exception | None:
        return AskFailed(f"fault {number % 2}") if number < 5 else None

    server = Server(fails=fails)
    found = run(server, Load(concurrency=2, num_prompts=12))
    assert len(server.asked_s) == 12
    assert (len(found.answers), found.failed) == (7, 5)
    assert found.faults == {"fault 0": 3, "fault 1": 2}
    assert not found.is_gone


def test_a_duration_ends_the_asking_and_waits_for_what_is_under_way() -> None:
    server = Server(takes_s=0.08)
    found = run(server, Load(concurrency=4, duration_s=0.3))
    assert server.asked_s[-1] - server.asked_s[0] < 0.4
    assert 4 <= len(server.asked_s) <= 16
    assert len(found.answers) == len(server.asked_s)
    assert found.own.seconds >= 0.3


def test_an_arrival_behind_the_duration_is_not_waited_for() -> None:
    start_s = time.perf_counter()
    found = run(Server(), Load(rate=0.001, duration_s=0.2))
    assert len(found.answers) == 1
    assert time.perf_counter() - start_s < 5


def test_a_server_that_is_gone_is_not_asked_for_ever_and_a_busy_one_is() -> None:
    gone = Server(fails=lambda _: Unreachable("cannot connect: refused"))
    found = run(gone, Load(concurrency=4, num_prompts=5000))
    assert found.is_gone
    assert MAX_UNREACHABLE_IN_ROW <= len(gone.asked_s) <= MAX_UNREACHABLE_IN_ROW + 4
    busy = Server(fails=lambda _: AskFailed("status 429"))
    found = run(busy, Load(concurrency=4, num_prompts=500))
    assert (found.failed, found.is_gone) == (500, False)


def test_a_stop_ends_all_requests() -> None:
    server = Server(takes_s=3600)

    async def stopped() -> None:
        load = Load(concurrency=3, num_prompts=9, rate=math.inf)
        task = asyncio.create_task(measure(server.ask, prompts(), load))
        while server.in_flight < 3:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(stopped())
    assert server.in_flight == 0


def test_the_clients_own_time_and_lag_are_seen() -> None:
    async def spent(busy_s: float) -> OwnCost:
        async with OwnCost() as own:
            for _ in range(5):
                await asyncio.sleep(0.03)
                end_s = time.thread_time() + busy_s
                while time.thread_time() < end_s:
                    pass
        return own

    idle, busy = asyncio.run(spent(0)), asyncio.run(spent(0.05))
    assert busy.cpu_s - idle.cpu_s >= 0.2
    assert max(busy.lags_s) >= 0.02, "a timer that was due while the loop was busy"
    assert 0.25 <= busy.cpu_s <= busy.seconds
    assert len(idle.lags_s) >= 2
