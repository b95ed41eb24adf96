"""Lets a text grow at the cost of what is added. Knows no message."""

from __future__ import annotations


def grow(holder: object, field: str, more: str) -> None:
    """Append to the text that an object holds at a field. A text that only a local name holds grows
    in place: one that comes in many parts costs its length, and not the square of that."""
    text: str = getattr(holder, field)
    setattr(holder, field, "")
    text += more
    setattr(holder, field, text)
