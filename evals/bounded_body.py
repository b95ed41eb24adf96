"""Gathers what a server sends, up to a bound. Knows no request and no client."""

from __future__ import annotations

MAX_LIST_BYTES = 1 << 20
"""Of a list of models; one of a thousand has about 100 kB."""
UNCOMPRESSED = {"Accept-Encoding": "identity"}
"""Headers of a request whose answer is bounded: a few compressed bytes can be gigabytes."""


class BodyTooLong(ValueError):
    """A server sends more than is read; the message says how much is."""


class BoundedBody:
    """The parts of an answer as they come. `add` raises BodyTooLong beyond `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._read = bytearray()

    def add(self, part: bytes) -> None:
        """Take what came next."""
        self._read += part
        if len(self._read) > self._limit:
            raise BodyTooLong(f"the answer has more than {self._limit} bytes")

    def content(self) -> bytes:
        """All that came."""
        return bytes(self._read)
