"""What the client itself costs while it measures: its loop's CPU time, and how late that loop is.

A chunk that comes while the loop is busy gets a later time than it had: so the lag bounds the error
of every time that is measured, and a loop near all of a core is what it measures itself.
"""

from __future__ import annotations

import asyncio
import time
from types import TracebackType

INTERVAL_S = 0.02
"""Between two looks at the lag: fifty a second cost under 1 % of a core."""


class OwnCost:
    """Measures the loop that it is entered in, until it is left.

    `cpu_s` are seconds of CPU of the loop's thread, `seconds` those of the clock, `lags_s` by how
    much the loop was late each time (a timer alone is up to a millisecond late).
    """

    def __init__(self) -> None:
        self.cpu_s = self.seconds = 0.0
        self.lags_s: list[float] = []

    async def __aenter__(self) -> OwnCost:
        self._probe = asyncio.create_task(self._look())
        self._cpu_s, self._start_s = time.thread_time(), time.perf_counter()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.cpu_s = time.thread_time() - self._cpu_s
        self.seconds = time.perf_counter() - self._start_s
        self._probe.cancel()

    async def _look(self) -> None:
        while True:
            start_s = time.perf_counter()
            await asyncio.sleep(INTERVAL_S)
            self.lags_s.append(max(time.perf_counter() - start_s - INTERVAL_S, 0.0))
