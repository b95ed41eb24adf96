"""Phases of a long step with their seconds, on standard error. Knows no phase and no command."""

from __future__ import annotations

import time
from collections.abc import Callable

from lostwax.backends.runtime.say import say


class Phases:
    """Prints each phase, with how long it took, when the next one begins.

    `start` (of `time.perf_counter`) is when the first phase began, if that was before now. `write`
    takes the lines.
    """

    def __init__(
        self,
        phase: str = "",
        start: float | None = None,
        write: Callable[[object], None] = say,
    ) -> None:
        self._write = write
        self._start = self._phase_start = time.perf_counter() if start is None else start
        self._phase = phase

    def __call__(self, phase: str) -> None:
        """Begin a phase."""
        self.end()
        self._phase = phase
        self._phase_start = time.perf_counter()

    def end(self) -> None:
        """End the current phase."""
        if self._phase:
            took = time.perf_counter() - self._phase_start
            self._write(f"  {self._phase:<36} {took:6.2f} s")
        self._phase = ""

    def note(self, text: str) -> None:
        """Say one line more; the current phase goes on."""
        self._write(f"  {text}")

    @property
    def total_s(self) -> float:
        """Seconds since the first phase."""
        return time.perf_counter() - self._start
