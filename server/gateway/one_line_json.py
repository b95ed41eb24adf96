"""JSON on one line, also where somebody else wrote it. Knows no stream.

Lines frame streams: a line break in an event is the event's end, or that of its data.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw

_ALSO_BREAKS = ("\x85", "\u2028", "\u2029")
"""What Unicode breaks lines at, too, and clients that split a stream as text (httpx's lines)."""


def one_line_json(written: bytes) -> Raw:
    """The same JSON without a line break, which other JSON can hold. Between its values a break
    says nothing, and no text holds one that is not written `\\n`."""
    return Raw(written.translate(None, b"\r\n"))


def line_of(event: Any) -> bytes:
    """The event as JSON that no reader takes for two lines. Only texts hold what is escaped."""
    written = msgspec.json.encode(event)
    for char in _ALSO_BREAKS:
        written = written.replace(char.encode(), b"\\u%04x" % ord(char))
    return written
