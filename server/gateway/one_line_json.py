"""JSON that somebody else wrote, on one line. Knows no stream.

Lines frame streams: a line break in an event is the event's end, or that of its data.
"""

from __future__ import annotations

from msgspec import Raw


def one_line_json(written: bytes) -> Raw:
    """The same JSON without a line break, which other JSON can hold. Between its values a break
    says nothing, and no text holds one that is not written `\\n`."""
    return Raw(written.translate(None, b"\r\n"))
