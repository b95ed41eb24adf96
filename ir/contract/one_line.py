"""Strings of other people's files and programs as one clean line. Knows no file and no terminal."""

from __future__ import annotations

MAX_SHOWN = 120
"""Characters of a foreign string that a message repeats."""


def one_line(text: object, limit: int = MAX_SHOWN) -> str:
    """The text as one line of at most `limit` characters, of which all can be seen.

    Line ends and tabs become spaces, other characters that are not printable (control sequences,
    marks that reverse the order of reading, halves of surrogate pairs) their escapes. What is too
    long loses its middle: the culprit stands in front, the remedy at the end.
    """
    return _shortened("".join(map(_seen, _shortened(str(text), limit))), limit)


def _shortened(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    kept = limit - 3
    return f"{text[: -(-kept // 2)]} … {text[len(text) - kept // 2 :]}"


def _seen(character: str) -> str:
    if character.isspace():
        return " "
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode()
