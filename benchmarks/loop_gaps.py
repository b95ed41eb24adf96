"""Measures from inside how long an event loop was held at once. Knows no server."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import msgspec

PERIOD_S = 0.005
LEAST_S = 0.005
"""Shorter ones are not kept."""


class Gap(msgspec.Struct, frozen=True):
    """A time in which a loop could not look: its end by the clock that all processes share."""

    end_s: float
    held_s: float


class LoopGaps:
    """Looks every few milliseconds and keeps each time in which the loop could not.

    Time in which the loop's thread could run and other programs had the processors is none of the
    loop's: the system counts it.
    """

    def __init__(self) -> None:
        self.gaps: list[Gap] = []

    async def watch(self) -> None:
        """Look, for ever."""
        before_s, before_waited_s = time.monotonic(), _waited_s()
        while True:
            await asyncio.sleep(PERIOD_S)
            now_s, waited_s = time.monotonic(), _waited_s()
            held_s = now_s - before_s - PERIOD_S - (waited_s - before_waited_s)
            if held_s > LEAST_S:
                self.gaps.append(Gap(now_s, held_s))
            before_s, before_waited_s = now_s, waited_s


def _waited_s() -> float:
    """Seconds in which this thread could run and did not, since it began."""
    return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
