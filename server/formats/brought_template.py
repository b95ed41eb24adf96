"""A chat template that an operator brings, as data. Runs nothing."""

from __future__ import annotations

import msgspec


class ChatTemplate(msgspec.Struct, frozen=True):
    """A template's text, what errors call it, and the variables that it reads."""

    name: str
    source: str
    reads: frozenset[str] = frozenset()
