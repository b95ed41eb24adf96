"""How far a start of the engine is, and how long it may still take. Knows no engine and no client.

What the last start took is what the next is expected to take; the first one is estimated.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

FIRST = "start the process"
"""Lasts until the engine names a phase of its own."""
LOAD = "load weights"
LOAD_BYTES_PER_S = 1e9
"""Of one thread that reads and forms weights."""
SILENT = "silent"
"""The phase of an engine that says nothing, and is started again unless it does."""
ESTIMATE_S = {
    FIRST: 0.5,
    "import runtime": 0.1,
    "read and verify artifact": 0.2,
    "import torch": 2.0,
    "golden probes": 3.0,
    LOAD: 0.5,
    "allocate caches, bind programs": 0.2,
    "choose threads": 0.5,
    "warm up": 0.5,
}
"""A first start of the model that comes with lostwax, on two cores."""
MIN_RETRY_S, MAX_RETRY_S = 1, 300


def estimate(weight_bytes: int) -> dict[str, float]:
    """Seconds that the phases of a first start may take, by name."""
    return ESTIMATE_S | {LOAD: ESTIMATE_S[LOAD] + weight_bytes / LOAD_BYTES_PER_S}


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a start is. `percent` of its time has passed; `left_s` are seconds, both estimated."""

    phase: str
    percent: int
    left_s: float

    @property
    def retry_s(self) -> int:
        """Whole seconds after which to ask again."""
        return min(max(math.ceil(self.left_s), MIN_RETRY_S), MAX_RETRY_S)


class StartClock:
    """Times the phases of one start after the other. `expected_s` is for the first."""

    def __init__(
        self, expected_s: Mapping[str, float], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._expected_s = dict(expected_s)
        self._clock = clock
        self._begun: dict[str, float] = {FIRST: clock()}

    def restart(self) -> None:
        """A start begins."""
        self._begun = {FIRST: self._clock()}

    def begin(self, phase: str) -> None:
        """The next phase of the start begins."""
        self._begun[phase] = self._clock()

    def ready(self) -> None:
        """The start is over: the next one is expected to go like it."""
        begins = [*self._begun.values(), self._clock()]
        lasted = [after - before for before, after in pairwise(begins)]
        self._expected_s = dict(zip(self._begun, lasted, strict=True))

    @property
    def whole_s(self) -> float:
        """What a start is expected to take, in seconds."""
        return sum(self._expected_s.values())

    @property
    def progress(self) -> Progress:
        """How far the start is. A phase that takes longer than expected counts as nearly done."""
        now = self._clock()
        phase = next(reversed(self._begun))
        waited_s = now - self._begun[phase]
        left_s = max(self._expected_s.get(phase, 0.0) - waited_s, 0.0)
        left_s += sum(s for name, s in self._expected_s.items() if name not in self._begun)
        done_s = now - self._begun[FIRST]
        percent = int(100 * done_s / (done_s + left_s)) if done_s + left_s else 0
        return Progress(phase, min(percent, 99), left_s)
