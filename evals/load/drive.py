"""Puts one load on a server: asks when requests arrive, as many at a time as may be.

Knows neither HTTP nor what is made of the times. A request that fails is counted and never tried
again: what a server refuses under load is part of what is measured.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field

from lostwax.evals.load.arrivals import arrivals
from lostwax.evals.load.own_cost import OwnCost
from lostwax.evals.load.prompts import Prompt
from lostwax.evals.load.stream import AskFailed, Timing, Unreachable
from lostwax.evals.task import TaskError

MAX_UNREACHABLE_IN_ROW = 32
"""So many connections that cannot be made in a row, and the server is taken to be gone."""
MAX_OPEN = 4096
"""Requests at a time where a load names no bound; each has a connection of its own."""
Ask = Callable[[Prompt], Awaitable[Timing]]


@dataclass(frozen=True, slots=True)
class Load:
    """One point of a sweep. `rate` is in requests a second; a concurrency of None is MAX_OPEN."""

    rate: float = math.inf
    concurrency: int | None = None
    num_prompts: int | None = None
    duration_s: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_prompts is None and self.duration_s is None:
            raise TaskError("a load must end: give a number of prompts or a duration")
        if self.num_prompts is None and self.concurrency is None and math.isinf(self.rate):
            raise TaskError(
                "an unlimited rate asks without end at once: give a number of prompts, a rate or"
                " a concurrency"
            )


@dataclass(slots=True)
class Measured:
    """What came of a load. `waits_s`: how long each request waited for its turn in the client."""

    answers: list[Timing] = field(default_factory=list[Timing])
    faults: Counter[str] = field(default_factory=Counter[str])
    waits_s: list[float] = field(default_factory=list[float])
    max_in_flight: int = 0
    is_gone: bool = False
    own: OwnCost = field(default_factory=OwnCost)

    @property
    def failed(self) -> int:
        """Requests without a whole answer."""
        return self.faults.total()


async def measure(
    ask: Ask,
    prompts: Iterator[Prompt],
    load: Load,
    told: Callable[[Measured], None] = lambda _: None,
    max_open: int = MAX_OPEN,
) -> Measured:
    """Ask until the load ends, then wait for what is under way; `told` hears of every answer.

    `max_open` is how many requests there may be at a time, whatever the load says.
    """
    drive = _Drive(ask, load, told, max_open)
    async with drive.measured.own, asyncio.TaskGroup() as group:
        async for prompt in drive.turns(prompts):
            group.create_task(drive.one(prompt))
    return drive.measured


class _Drive:
    """The requests of one load that are under way."""

    def __init__(
        self, ask: Ask, load: Load, told: Callable[[Measured], None], max_open: int
    ) -> None:
        self._ask = ask
        self._load = load
        self._told = told
        self._places = asyncio.Semaphore(min(load.concurrency or max_open, max_open))
        self._in_flight = self._unreachable_in_row = 0
        self.measured = Measured()

    async def turns(self, prompts: Iterator[Prompt]) -> AsyncIterator[Prompt]:
        """Each prompt when it has arrived and there is a place for it, first come first served."""
        start_s = time.perf_counter()
        end_s = start_s + (self._load.duration_s or math.inf)
        due = itertools.islice(arrivals(self._load.rate, self._load.seed), self._load.num_prompts)
        for after_s in due:
            at_s = start_s + after_s
            prompt = next(prompts)  # made before its time, so that it is not late by that
            if at_s >= end_s:
                return
            # Also where it is late: what was begun before gets its turn.
            await asyncio.sleep(max(at_s - time.perf_counter(), 0.0))
            await self._places.acquire()
            if self.measured.is_gone or time.perf_counter() >= end_s:
                return
            self._in_flight += 1
            self.measured.max_in_flight = max(self.measured.max_in_flight, self._in_flight)
            self.measured.waits_s.append(max(time.perf_counter() - at_s, 0.0))
            yield prompt

    async def one(self, prompt: Prompt) -> None:
        """Ask, and count what comes."""
        try:
            self.measured.answers.append(await self._ask(prompt))
            self._unreachable_in_row = 0
        except AskFailed as error:
            self.measured.faults[str(error)] += 1
            is_unreachable = isinstance(error, Unreachable)
            self._unreachable_in_row = self._unreachable_in_row + 1 if is_unreachable else 0
            self.measured.is_gone |= self._unreachable_in_row >= MAX_UNREACHABLE_IN_ROW
        finally:
            self._in_flight -= 1
            self._places.release()
        self._told(self.measured)
