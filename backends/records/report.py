"""A report of a device: one file of records, a line each, of any keys. Measures nothing.

A line is on the disk before the next lowering runs, so that what a device survived is known even
where the next thing took the process with it.
"""

from __future__ import annotations

import os
from pathlib import Path

from lostwax.backends.records.store import read_lines
from lostwax.ir.contract.canonical import canonical_json
from lostwax.ir.contract.record import Record

MAX_BYTES = 256 << 20
"""A certificate has 2 KB; a 61-layer artifact has a few hundred."""


class ReportWriter:
    """Adds records to a new file. Raises FileExistsError where one is there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open("xb"):
            pass

    def add(self, record: Record) -> None:
        """Write a line; it is on the disk when this returns."""
        with self._path.open("ab") as file:
            file.write(canonical_json(record) + b"\n")
            file.flush()
            os.fsync(file.fileno())


def read_report(path: Path) -> tuple[Record, ...]:
    """The records of a report, in its order. BadRecord where a line is torn or malformed.

    `RecordStore.take` files them under their keys.
    """
    return tuple(read_lines(path, MAX_BYTES, "ask for it again, or remove that line"))
