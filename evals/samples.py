"""Keeps finished samples in a file, so that a stopped evaluation goes on where it was.

JSON Lines: the settings first, then one sample a line, written as it finishes. A line that was cut
off by a kill is dropped; any other damage is an error. Knows no server.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from lostwax.evals.jsonl import MAX_FILE_BYTES, MAX_LINE_BYTES
from lostwax.evals.task import Answer, Grade, TaskError
from lostwax.ir.contract.canonical import canonical_json

SCHEMA = 1


class Sample(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One answer with its grade. `digest` names what was asked and what was right."""

    id: str
    repeat: int
    digest: str
    answer: Answer
    grade: Grade
    reference: Any
    is_exact: bool | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    retries: int = 0

    @property
    def key(self) -> tuple[str, int]:
        """What tells samples of one task apart."""
        return self.id, self.repeat


class _Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    schema: int
    settings: dict[str, Any]


class SampleFile:
    """Finished samples of one task under one setting; `found` are those of earlier runs."""

    def __init__(self, file: BinaryIO, found: dict[tuple[str, int], Sample]) -> None:
        self._file = file
        self.found = found

    def append(self, sample: Sample) -> None:
        """Keep a sample; it is in the file when this returns."""
        self._file.write(canonical_json(sample) + b"\n")
        self._file.flush()


@contextmanager
def open_samples(path: Path, settings: dict[str, Any], *, restart: bool) -> Generator[SampleFile]:
    """The file of a task's samples, made where there is none; `restart` forgets what it holds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TaskError(
                f"another process writes {path} now; wait for it or give another --out"
            ) from error
        if restart:
            file.truncate(0)
        found = _read(path, file, settings)
        if not file.tell():
            file.write(canonical_json(_Head(SCHEMA, settings)) + b"\n")
            file.flush()
        yield SampleFile(file, found)


def _read(path: Path, file: BinaryIO, settings: dict[str, Any]) -> dict[tuple[str, int], Sample]:
    """Samples in the file, which is left at the end of its last whole line."""
    if os.fstat(file.fileno()).st_size > 8 * MAX_FILE_BYTES:
        raise TaskError(f"{path} is too large to be read; give another --out, or --restart")
    found: dict[tuple[str, int], Sample] = {}
    end = 0
    for number, line in enumerate(iter(lambda: file.readline(2 * MAX_LINE_BYTES), b""), 1):
        if not line.endswith(b"\n"):
            if len(line) == 2 * MAX_LINE_BYTES:
                raise TaskError(f"{path}:{number} is too long; give --restart, or another --out")
            break  # a kill came between
        end += len(line)
        try:
            if number == 1:
                _require_same(path, msgspec.json.decode(line, type=_Head), settings)
                continue
            sample = msgspec.json.decode(line, type=Sample)
        except (msgspec.DecodeError, RecursionError) as error:
            raise TaskError(
                f"{path}:{number} is no sample ({error}); give --restart, or another --out"
            ) from error
        found[sample.key] = sample
    file.seek(end)
    file.truncate()
    return found


def _require_same(path: Path, head: _Head, settings: dict[str, Any]) -> None:
    if head.schema != SCHEMA:
        raise TaskError(f"{path} is of another version; give --restart, or another --out")
    there, here = head.settings, msgspec.json.decode(canonical_json(settings))
    differing = sorted(k for k in there.keys() | here.keys() if there.get(k) != here.get(k))
    if differing:
        shown = ", ".join(f"{k} was {there.get(k)!r} and is {here.get(k)!r}" for k in differing)
        raise TaskError(
            f"{path} holds samples of other settings ({shown}); give --restart to forget them, or"
            " another --out"
        )
