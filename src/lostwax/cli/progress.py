"""Phases of a command with their seconds, on standard error. Knows no command."""

from __future__ import annotations

import sys
import time


class Phases:
    """Prints each phase when it begins and how long it took when the next one does."""

    def __init__(self) -> None:
        self._start = self._phase_start = time.perf_counter()
        self._phase = ""

    def __call__(self, phase: str) -> None:
        """Begin a phase."""
        self.end()
        self._phase = phase
        self._phase_start = time.perf_counter()

    def end(self) -> None:
        """End the current phase."""
        if self._phase:
            took = time.perf_counter() - self._phase_start
            print(f"  {self._phase:<36} {took:6.2f} s", file=sys.stderr, flush=True)
        self._phase = ""

    @property
    def total_s(self) -> float:
        """Seconds since the first phase."""
        return time.perf_counter() - self._start
