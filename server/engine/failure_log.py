"""The operator's log of what failed inside: whole, and bounded in rate. Knows no request's insides.

Clients are never told: an exception's text may hold paths, shapes and other people's input.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Sequence

WINDOW_S = 60.0
MAX_IN_WINDOW = 20
"""Failures printed a window; the rest is counted."""
MAX_CHARS = 16_000
"""Of one failure's traceback, the end."""
MAX_IDS = 16


def _print(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class FailureLog:
    """Writes failures with traceback and request ids, at most MAX_IN_WINDOW each WINDOW_S."""

    def __init__(
        self,
        write: Callable[[str], None] = _print,
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
        trace = "".join(traceback.format_exception(error)).rstrip()[-MAX_CHARS:]
        self._write(f"{what}{_named(request_ids)}: {type(error).__name__}: {error}\n{trace}")


def _named(request_ids: Sequence[str]) -> str:
    if not request_ids:
        return ""
    more = f" and {len(request_ids) - MAX_IDS} more" if len(request_ids) > MAX_IDS else ""
    return f" (request {', '.join(request_ids[:MAX_IDS])}{more})"
