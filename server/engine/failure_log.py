"""The operator's log of what failed inside: whole, and bounded in rate. Knows no request's insides.

Clients are never told: an exception's text may hold paths, shapes and other people's input.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from textwrap import indent

from lostwax.backends.runtime.say import MAX_LINE, say_lines
from lostwax.ir.contract.one_line import one_line
from lostwax.server.told_fault import trace_of

WINDOW_S = 60.0
MAX_IN_WINDOW = 20
"""Failures printed a window; the rest is counted."""
MAX_IDS = 16


class FailureLog:
    """Writes failures with traceback and request ids, at most MAX_IN_WINDOW each WINDOW_S."""

    def __init__(
        self,
        write: Callable[[str], None] = say_lines,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._write = write
        self._clock = clock
        self._window_start = -WINDOW_S
        self._num_in_window = 0

    def __call__(self, what: str, error: BaseException, request_ids: Sequence[str] = ()) -> None:
        """Say that `what` happened to these requests, because of `error`."""
        now = self._clock()
        if now - self._window_start >= WINDOW_S:
            num_left_out = max(self._num_in_window - MAX_IN_WINDOW, 0)
            if num_left_out:
                self._write(f"{num_left_out} more failures were not logged")
            self._window_start, self._num_in_window = now, 0
        self._num_in_window += 1
        if self._num_in_window > MAX_IN_WINDOW:
            return
        head = one_line(f"{what}{_named(request_ids)}: {type(error).__name__}: {error}", MAX_LINE)
        # Indented, so that no line of a quoted message looks like one of ours.
        self._write(f"{head}\n{indent(trace_of(error), '  ')}")


def _named(request_ids: Sequence[str]) -> str:
    if not request_ids:
        return ""
    more = f" and {len(request_ids) - MAX_IDS} more" if len(request_ids) > MAX_IDS else ""
    return f" (request {', '.join(request_ids[:MAX_IDS])}{more})"
