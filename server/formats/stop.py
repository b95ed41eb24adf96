"""Finds stop strings in streamed text, across token borders. Knows no tokens."""

from __future__ import annotations

from collections.abc import Sequence


def num_pending(text: str, marks: Sequence[str]) -> int:
    """Characters at the end of `text` that may yet become one of `marks`."""
    longest = max(map(len, marks), default=1) - 1
    end = text[-longest:] if longest else ""
    if not any(mark[:1] in end for mark in marks):  # as most text
        return 0
    for count in range(min(longest, len(text)), 0, -1):
        if any(mark.startswith(text[-count:]) for mark in marks):
            return count
    return 0


class StopFinder:
    """Lets text through up to a stop string; holds back what may yet become one."""

    def __init__(self, stops: list[str]) -> None:
        self._stops = stops
        self._held = ""
        self.stop: str | None = None
        """The one that was found."""

    @property
    def found(self) -> bool:
        """Whether nothing more is let through."""
        return self.stop is not None

    def push(self, text: str) -> str:
        """The text that is safe to show."""
        if not self._stops:
            return text
        if self.found:
            return ""
        self._held += text
        places = ((self._held.find(stop), stop) for stop in self._stops)
        hits = [(at, stop) for at, stop in places if at >= 0]
        if hits:
            at, self.stop = min(hits)
            return self._release(at)
        return self._release(len(self._held) - num_pending(self._held, self._stops))

    def flush(self) -> str:
        """What was held back, when the answer ended without a stop string."""
        return "" if self.found else self._release(len(self._held))

    def _release(self, count: int) -> str:
        text, self._held = self._held[:count], self._held[count:]
        return text
