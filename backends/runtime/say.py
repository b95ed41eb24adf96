"""Prints lines that hold foreign text: names, paths, other programs' messages. Knows no command.

An artifact, a checkpoint, a task file or a server may say anything, also what would steer the
terminal or look like a line of ours. So every line that this project prints goes through here.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any, cast

from lostwax.ir.contract.one_line import one_line

MAX_LINE = 2000
"""Characters of a printed line; an error's sentence with a compiler's message fits."""
MAX_NAME = 200
"""Characters of a name within a line or on a bar."""
_CONTROL = {c: None for c in (*range(32), *range(127, 160)) if chr(c) not in "\n\t"}


def many_lines(text: str) -> str:
    """The text with its line ends and tabs, and without the characters that steer a terminal."""
    return text.translate(_CONTROL).encode(errors="replace").decode()


def say(text: object) -> None:
    """Print one line of what happens to standard error, at once."""
    print(one_line(text, MAX_LINE), file=sys.stderr, flush=True)


def say_lines(text: str) -> None:
    """Print text of many lines, such as a traceback or a diagnostic with its caret, to standard
    error."""
    print(many_lines(text), file=sys.stderr, flush=True)


def say_json(fields: Mapping[str, object]) -> None:
    """Print one line of JSON to standard error, at once. Each text, alone or in a list, is made one
    clean line first; what is not ASCII is escaped."""
    print(
        json.dumps({name: _clean(value) for name, value in fields.items()}),
        file=sys.stderr,
        flush=True,
    )


def _clean(value: object) -> object:
    if isinstance(value, str):
        return one_line(value, MAX_LINE)
    if isinstance(value, list):
        return [_clean(each) for each in cast("list[object]", value)]
    return value


def result(text: object) -> None:
    """Print one line of a command's result to standard output."""
    print(one_line(text, MAX_LINE), flush=True)


def result_lines(text: str) -> None:
    """Print a result of many lines, such as a module, to standard output."""
    print(many_lines(text), flush=True)


def result_json(value: Any, indent: int | None = None) -> None:
    """Print plain data as JSON to standard output; what is not ASCII is escaped."""
    print(json.dumps(value, indent=indent), flush=True)
