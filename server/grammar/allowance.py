"""Processor time that following a grammar may take. Knows no grammar.

The kernel ends the process when it is used up: no code of a library that loops is asked to stop.
"""

from __future__ import annotations

import signal
from collections.abc import Generator
from contextlib import contextmanager

BURST_S = 0.05
"""Once: some masks of an honest schema take 10 ms of 129,280 tokens."""
EARNED_S = 0.002
"""A mask, on average: those of honest schemas take 0.1 ms."""
_LEAST_S = 0.001


class Allowance:
    """Time that is earned by masks and spent on them."""

    def __init__(self, burst_s: float = BURST_S) -> None:
        self._burst_s = burst_s
        self._left_s = burst_s

    @contextmanager
    def spending(self, num_masks: int) -> Generator[None]:
        """The process ends where making so many masks takes more time than is left."""
        self._left_s = min(self._left_s + num_masks * EARNED_S, self._burst_s)
        signal.setitimer(signal.ITIMER_PROF, max(self._left_s, _LEAST_S))
        try:
            yield
        finally:
            self._left_s = signal.setitimer(signal.ITIMER_PROF, 0)[0]
