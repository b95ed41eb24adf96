"""The lines of a report's certify.jsonl: how many sites are to come, each of them, and the end.

So a report of which the device has seen a part only says so. Knows no device and no lowering.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec

from lostwax.ir.contract.foreign_file import BadFile, decoded, read_bounded


class _First(msgspec.Struct):
    expected: int


class _Line(msgspec.Struct):
    """What is read of a line behind the first: of a site its error, or that all was told."""

    error: str | msgspec.UnsetType | None = msgspec.UNSET
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Sites:
    """What became of the sites of an artifact: the sentences of the wrong ones."""

    expected: int
    seen: int
    wrong: tuple[str, ...]
    ended: bool

    @property
    def is_whole(self) -> bool:
        """Whether every site was tried, and the run came to its end."""
        return self.ended and self.seen == self.expected


class SiteWriter:
    """Adds lines to a file that was begun."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def add(self, site: Mapping[str, object]) -> None:
        """Write a line; it has left this process when this returns."""
        self._file.write(msgspec.json.encode(site) + b"\n")
        self._file.flush()


@contextmanager
def site_lines(path: Path, expected: int) -> Generator[SiteWriter]:
    """A new file for `expected` sites, which is ended where the block is not left by an error."""
    with path.open("xb") as file:
        writer = SiteWriter(file)
        writer.add({"expected": expected})
        yield writer
        writer.add({"ended": True})


def read_sites(path: Path, max_bytes: int) -> Sites:
    """What the file says; a line that was cut short is none. Raises MissingFile, BadFile."""
    whole, _, _ = read_bounded(path, max_bytes).rpartition(b"\n")
    first, *lines = whole.splitlines() or [b""]
    expected = decoded(first, _First, Path(f"{path}:1")).expected
    wrong: list[str] = []
    seen, ended = 0, False
    for number, line in enumerate(lines, 2):
        place = Path(f"{path}:{number}")
        found = decoded(line, _Line, place)
        if ended or (found.error is msgspec.UNSET) != found.ended:
            raise BadFile(f"{place} is damaged (it is neither a site nor the end)")
        ended = found.ended
        seen += not ended
        if isinstance(found.error, str):
            wrong.append(found.error)
    return Sites(expected, seen, tuple(wrong), ended)
