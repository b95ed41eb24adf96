"""Splits a stream of server-sent events into lines, each of a bounded length. Knows no event."""

from __future__ import annotations

MAX_EVENT_BYTES = 1 << 20
"""One token with its log-probabilities is about a kilobyte."""


class EventTooLong(ValueError):
    """A server sends a line of more than MAX_EVENT_BYTES."""


class EventLines:
    """Takes the parts of a stream as they come, gives the lines that are whole."""

    def __init__(self) -> None:
        self._left = b""

    def add(self, part: bytes) -> list[bytes]:
        """The lines that this part ends, without their line ends. Raises EventTooLong."""
        *whole, self._left = (self._left + part).split(b"\n")
        if len(self._left) > MAX_EVENT_BYTES:
            raise EventTooLong(f"the server sent an event of more than {MAX_EVENT_BYTES} bytes")
        return whole
