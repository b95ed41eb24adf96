"""Reads JSON Lines files strictly, with a bound on every size. Knows no task."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from lostwax.evals.task import TaskError

MAX_FILE_BYTES = 256 * 2**20
MAX_LINE_BYTES = 4 * 2**20
"""Four times a prompt of 160k tokens in English."""
MAX_LINES = 200_000
MAX_DEPTH = 128
"""Lists and objects in one another: what walks through a value calls itself for each."""
_NESTING = re.compile(rb'"(?:[^"\\]|\\.)*+"|([\[{])|([\]}])', re.DOTALL)
"""Strings, which are skipped, and what opens or closes."""

T = TypeVar("T")


def read_lines(path: Path, type_: type[T]) -> Iterator[tuple[str, T]]:
    """(place, value) of every line that is not empty; errors name file and line."""
    decoder = msgspec.json.Decoder(type_, strict=True)
    for place, line in _lines(path):
        if _depth(line) > MAX_DEPTH:
            raise TaskError(f"{place}: it is nested more than {MAX_DEPTH} deep")
        try:
            yield place, decoder.decode(line)
        except (msgspec.DecodeError, RecursionError) as error:
            raise TaskError(f"{place}: {error}") from error


def _depth(line: bytes) -> int:
    """How deep a line's JSON is nested, at the most."""
    if line.count(b"[") + line.count(b"{") <= MAX_DEPTH:
        return 0
    depth = deepest = 0
    for found in _NESTING.finditer(line):
        depth += (found[1] is not None) - (found[2] is not None)
        deepest = max(deepest, depth)
    return deepest


def convert(place: str, value: Any, type_: type[T]) -> T:
    """A part of a line, as the type that another part of it asks for."""
    try:
        return msgspec.convert(value, type_, strict=True)
    except msgspec.ValidationError as error:
        raise TaskError(f"{place}: {error}") from error


def _lines(path: Path) -> Iterator[tuple[str, bytes]]:
    if not path.is_file():
        raise TaskError(f"{path} is no file; give one in JSON Lines")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise TaskError(f"{path} has more than {MAX_FILE_BYTES} bytes; split it")
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if len(line) > MAX_LINE_BYTES:
                raise TaskError(f"{path}:{number}: a line has more than {MAX_LINE_BYTES} bytes")
            if number > MAX_LINES:
                raise TaskError(f"{path} has more than {MAX_LINES} lines; split it")
            if line.strip():
                yield f"{path}:{number}", line
