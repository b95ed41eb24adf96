"""HTTP/1.1 parsing with bounds on what a client makes of it. Knows h11, no connection.

h11 parses on the event loop. Two things cost it more than their bytes: chunks of a byte or two,
and a line of a head or a trailer that is padded (its pattern tries every split of the blanks).
"""

from __future__ import annotations

import re
from typing import Any

import h11

MAX_HEADER_BYTES = 65536
"""Of a head, or a trailer."""
MAX_FRAMING_BYTES = 65536
"""Of one body: sizes, extensions and ends of its chunks. 16 MiB in chunks of 4 KiB take half."""
MAX_PADDING_BYTES = 128
_PADDING = re.compile(rb"[ \t]{%d}" % (MAX_PADDING_BYTES + 1))
_LAST_LINE = re.compile(rb"\n\r?\n")
_LAST_CHUNK = re.compile(rb"(?:\r?\n)?0{1,20}(?:[ \t;][^\n]*)?\r\n")


class BoundedParser(h11.Connection):
    """A server's side of a connection. `next_event` raises RemoteProtocolError at a bound, too."""

    def __init__(self) -> None:
        super().__init__(h11.SERVER, MAX_HEADER_BYTES)
        self._framing_bytes = 0
        self._is_between_chunks = False
        self._is_in_trailer = False

    def receive_data(self, data: bytes) -> None:
        """Take what came."""
        self._framing_bytes += len(data)
        super().receive_data(data)

    def next_event(self) -> Any:
        """As h11 has it."""
        if self.their_state is h11.IDLE:
            self._require_no_padding(self._rest)
        elif self._is_between_chunks:
            self._check_trailer(self._rest)
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._framing_bytes = len(self._rest)
            names = [name for name, _ in event.headers]
            self._is_between_chunks = b"transfer-encoding" in names
            self._is_in_trailer = False
        elif isinstance(event, h11.Data):
            self._is_between_chunks = event.chunk_end
            self._framing_bytes -= len(event.data)
            # What is not parsed yet may be content.
            if self._framing_bytes - len(self._rest) > MAX_FRAMING_BYTES:
                raise h11.RemoteProtocolError("the body comes in chunks that are too small")
        elif isinstance(event, h11.EndOfMessage):
            self._is_between_chunks = False
        return event

    @property
    def _rest(self) -> bytes:
        return self.trailing_data[0]

    def _check_trailer(self, rest: bytes) -> None:
        last = _LAST_CHUNK.match(rest)
        self._is_in_trailer = self._is_in_trailer or last is not None
        if self._is_in_trailer:
            self._require_no_padding(rest)

    def _require_no_padding(self, fields: bytes) -> None:
        end = _LAST_LINE.search(fields)
        # Not whole, they are not parsed yet.
        if end is not None and _PADDING.search(fields, 0, end.end()):
            raise h11.RemoteProtocolError("a header is padded with too many blanks")
