"""Prints lines that hold foreign text: names, paths, other programs' messages. Knows no command.

An artifact, a checkpoint, a task file or a server may say anything, also what would steer the
terminal or look like a line of ours. So every line that this project prints goes through here.
"""

from __future__ import annotations

import json
import sys
from typing import Any

MAX_LINE = 2000
"""Characters of a printed line; an error's sentence with a compiler's message fits."""
MAX_NAME = 200
"""Characters of a name within a line or on a bar."""
_CONTROL = {c: None for c in (*range(32), *range(127, 160)) if chr(c) not in "\n\t"}


def one_line(text: object, limit: int = MAX_LINE) -> str:
    """The text as one line of at most `limit` characters, of which all can be seen.

    Line ends and tabs become spaces, other characters that are not printable (control sequences,
    marks that reverse the order of reading, halves of surrogate pairs) their escapes. What is too
    long loses its middle: the culprit stands in front, the remedy at the end.
    """
    return _shortened("".join(map(_seen, _shortened(str(text), limit))), limit)


def many_lines(text: str) -> str:
    """The text with its line ends and tabs, and without the characters that steer a terminal."""
    return text.translate(_CONTROL).encode(errors="replace").decode()


def say(text: object) -> None:
    """Print one line of what happens to standard error, at once."""
    print(one_line(text), file=sys.stderr, flush=True)


def say_lines(text: str) -> None:
    """Print text of many lines, such as a traceback or a diagnostic with its caret, to standard
    error."""
    print(many_lines(text), file=sys.stderr, flush=True)


def result(text: object) -> None:
    """Print one line of a command's result to standard output."""
    print(one_line(text), flush=True)


def result_lines(text: str) -> None:
    """Print a result of many lines, such as a module, to standard output."""
    print(many_lines(text), flush=True)


def result_json(value: Any, indent: int | None = None) -> None:
    """Print plain data as JSON to standard output; what is not ASCII is escaped."""
    print(json.dumps(value, indent=indent), flush=True)


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
