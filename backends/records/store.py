"""Records on disk: JSON Lines, one atomic file a key, tiers user -> shared -> shipped.

Knows no lowering and no device. A file holds one line a knob setting.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from lostwax.backends.runtime.say import say as say_line
from lostwax.backends.runtime.whole_file import write_whole
from lostwax.ir.contract.canonical import canonical_json
from lostwax.ir.contract.foreign_file import BadFile, decoded, read_bounded
from lostwax.ir.contract.record import SCHEMA, Record, RecordKey

MAX_BYTES = 16 << 20
"""Of one key's file: a line a knob setting, a thousand samples a line."""


class BadRecord(ValueError):
    """A record file that cannot be trusted; the message names the file and what to do."""


class NewerRecord(BadRecord):
    """A record file of a newer lostwax: not damaged, and so never replaced."""


class _Versioned(msgspec.Struct):
    schema: int


@dataclass(frozen=True, slots=True)
class RecordStore:
    """Folders of records in order of preference; the first one is written to.

    A damaged file is a miss, which the next `put` or `merge` mends; `say` is told which.
    """

    tiers: tuple[Path, ...]
    say: Callable[[str], None] = say_line

    def find(self, key: RecordKey) -> tuple[Record, ...]:
        """The records of a key, in knob order, from the first tier that has the key."""
        for tier in self.tiers:
            found = self._read(tier / _file_name(key.digest()))
            if found:
                return found
        return ()

    def put(self, record: Record) -> None:
        """Add a record to the first tier; it replaces one of the same key and knobs."""
        if not self.tiers:
            raise ValueError("the record store has no folder to write to; give it a tier")
        path = self.tiers[0] / _file_name(record.key.digest())
        kept = self._read(path)
        write_records(path, [r for r in kept if r.knobs != record.knobs] + [record])

    def merge(self, folder: Path) -> int:
        """Merge another folder's records into the first tier; returns how many files changed.

        The result does not depend on which side is merged into which.
        """
        return sum(
            self._merge(self.tiers[0] / source.relative_to(folder), read_records(source))
            for source in record_files(folder)
        )

    def take(self, records: Iterable[Record]) -> int:
        """Merge records of any keys, such as a report's, likewise into the first tier."""
        of_keys: dict[str, list[Record]] = {}
        for record in records:
            of_keys.setdefault(record.key.digest(), []).append(record)
        return sum(self._merge(self.tiers[0] / _file_name(d), r) for d, r in of_keys.items())

    def _merge(self, path: Path, records: Iterable[Record]) -> bool:
        """Whether the file of a key was changed."""
        kept = self._read(path)
        merged = merge_records((*kept, *records))
        if merged == kept:
            return False
        write_records(path, merged)
        return True

    def _read(self, path: Path) -> tuple[Record, ...]:
        """The records of a key's file, none where it is missing or damaged."""
        if not os.path.lexists(path):
            return ()
        try:
            return read_records(path)
        except NewerRecord:
            raise
        except BadRecord as error:
            self.say(f"{error}; it counts for nothing and is written anew")
            return ()


def record_files(folder: Path) -> Iterator[Path]:
    """Every record file below a folder, in the order of their keys."""
    yield from sorted(folder.glob("*/*.jsonl"))


def merge_records(records: Iterable[Record]) -> tuple[Record, ...]:
    """One record a knob setting, in knob order.

    Of two for one setting the stronger certificate state wins, then more samples, then the smaller
    canonical text: no order of arrival, no clock.
    """
    strength = {"executed": 0, "interpreted": 1, "compiled": 2}
    best: dict[tuple[tuple[str, int], ...], Record] = {}
    for record in sorted(
        records,
        key=lambda r: (strength[r.certificate.state], -len(r.samples_us), canonical_json(r)),
    ):
        best.setdefault(record.knob_order, record)
    return tuple(best[k] for k in sorted(best))


def fastest(records: Iterable[Record]) -> Record | None:
    """The record to choose: least median, where medians within noise are equal.

    Among equals the fixed order (lowering, knobs) decides, so that two tunings agree.
    """
    timed = [(r.median_us, r) for r in records if r.median_us is not None]
    if not timed:
        return None
    least_us, least = min(timed, key=lambda t: (t[0], t[1].key.lowering, t[1].knob_order))
    equals = [r for us, r in timed if us - least_us <= max(r.noise_us, least.noise_us)]
    return min(equals, key=lambda r: (r.key.lowering, r.knob_order))


def read_records(path: Path) -> tuple[Record, ...]:
    """The records of one file; BadRecord if it is torn, malformed, newer or under a wrong name."""
    remedy = "delete it and tune again"
    records = read_lines(path, MAX_BYTES, remedy)
    for number, record in enumerate(records, 1):
        if path.stem != record.key.digest():
            raise BadRecord(f"{path}:{number} holds the key {record.key.digest()}; {remedy}")
    return tuple(sorted(records, key=lambda r: r.knob_order))


def read_lines(path: Path, max_bytes: int, remedy: str) -> list[Record]:
    """The records of a file's lines, whatever their keys; BadRecord with a remedy."""
    try:
        text = read_bounded(path, max_bytes)
    except BadFile as error:
        raise BadRecord(f"{error}; {remedy}") from error
    if not text.endswith(b"\n"):
        raise BadRecord(f"{path} is torn (no newline at its end); {remedy}")
    lines = enumerate(text.splitlines(), 1)
    return [_record(line, Path(f"{path}:{number}"), remedy) for number, line in lines]


def _record(line: bytes, place: Path, remedy: str) -> Record:
    try:
        schema = decoded(line, _Versioned, place).schema
        if schema > SCHEMA:
            raise NewerRecord(
                f"{place} has schema {schema}, this version reads up to {SCHEMA}; "
                "upgrade lostwax or use another record folder"
            )
        if schema < SCHEMA:
            raise BadRecord(
                f"{place} has schema {schema}, whose key says too little of what was measured"
                f" (this version reads {SCHEMA}); delete it and measure again"
            )
        return decoded(line, Record, place)
    except BadFile as error:
        raise BadRecord(f"{error}; {remedy}") from error


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Replace one key's file in one step; readers see the old or the new one, never a part."""
    ordered = sorted(records, key=lambda r: r.knob_order)
    write_whole(path, b"".join(canonical_json(r) + b"\n" for r in ordered))


def _file_name(digest: str) -> Path:
    return Path(digest[:2]) / f"{digest}.jsonl"
