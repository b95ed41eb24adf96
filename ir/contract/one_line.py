"""Strings of other people's files as one clean line. Knows no file."""

from __future__ import annotations

MAX_SHOWN = 120
"""Characters of a foreign string that a message repeats."""


def one_line(text: str, limit: int = MAX_SHOWN) -> str:
    """At most `limit` characters, all of them printable: others are written as escapes."""
    cut = text[: limit + 1]
    clean = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in cut)
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"
