"""Tells the marks that a template writes from those that a client brings. Knows no template.

A rendered prompt is one text, in which a client's `<think>` looks like the template's, also where
two messages bring a half each. So each mark in the template's own texts is put between two guards
before it runs. What comes out between guards is structure; a client's text never is, whatever the
template does with it, as it holds no guard.
"""

from __future__ import annotations

import re

from lostwax.server.formats.mark_pattern import mark_pattern
from lostwax.server.formats.pieces import Piece

GUARDS = ("\U0010fffe", "\U0010ffff")
"""No characters, by Unicode (23.7); nor does unescaping of HTML, which templates can do, make
them."""
_OPEN, _CLOSE = GUARDS
_GUARDED = re.compile(f"{_OPEN}([^{_OPEN}{_CLOSE}]*){_CLOSE}")


class CutMark(ValueError):
    """The template changes a mark that it wrote; the message says which."""


def guarded(text: str, marks: frozenset[str]) -> str:
    """The text, its marks between guards."""
    return mark_pattern(marks).sub(rf"{_OPEN}\1{_CLOSE}", text)


def pieces_of(prompt: str, marks: frozenset[str]) -> list[Piece]:
    """What a template wrote, in pieces, without the guards. Raises CutMark."""
    pieces = list[Piece]()
    for number, text in enumerate(_GUARDED.split(prompt)):
        is_structure = number % 2 == 1
        if (is_structure and text not in marks) or any(guard in text for guard in GUARDS):
            raise CutMark(
                f"the chat template cuts or changes a mark of its own, near {text[:64]!r}"
            )
        if text:
            pieces.append(Piece(text, is_structure))
    return pieces
