"""A report of a device: one file of records, a line each, of any keys. Measures nothing.

A line is on the disk before the next lowering runs, so that what a device survived is known even
where the next thing took the process with it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lostwax.backends.lowering import Lowering
from lostwax.backends.proof.tolerance import LOOSEST
from lostwax.backends.records.store import BadRecord, read_lines
from lostwax.ir.contract.canonical import canonical_json
from lostwax.ir.contract.record import Record

MAX_BYTES = 32 << 20
"""A record has 2 KB; a 61-layer artifact has a few hundred."""


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
    """The records of a report, in its order; none where nothing was right on the device.

    BadRecord where a line is torn or malformed. `RecordStore.take` files them under their keys.
    """
    if path.is_file() and path.stat().st_size == 0:
        return ()  # a writer makes the file before it has a line
    return tuple(read_lines(path, MAX_BYTES, "ask for it again, or remove that line"))


def require_evidence(path: Path, records: Sequence[Record]) -> None:
    """BadRecord for what no bring-up writes: times, which decide a compile, errors beyond every
    tolerance, and chosen sets that agree in fewer rows than any lowering's may."""
    for number, record in enumerate(records, 1):
        found, said = record.certificate, None
        max_error, rms_error = found.max_error or 0.0, found.rms_error or 0.0
        agreement = 1.0 if found.set_agreement is None else found.set_agreement
        if record.samples_us:
            said = "holds times, which a bring-up does not measure and a compile would go by"
        elif max_error > LOOSEST.max_error or rms_error > LOOSEST.rms_error:
            said = (
                f"has errors of {max_error} max, {rms_error} RMS, and no lowering may"
                f" be beyond {LOOSEST.max_error} max, {LOOSEST.rms_error} RMS"
            )
        elif agreement < LOOSEST.agreement:
            said = (
                f"has sets that agree in {agreement:.1%} of rows, and no lowering may have fewer"
                f" than {LOOSEST.agreement:.0%}"
            )
        if said is not None:
            raise BadRecord(
                f"{path}:{number} {said}; ask for a report that `lostwax bring-up` wrote"
            )


def require_settings(
    path: Path, records: Sequence[Record], lowerings: Mapping[str, Sequence[Lowering]]
) -> None:
    """BadRecord where none of the lowerings of a record's name has its knobs.

    Names that `lowerings` does not have are not looked at.
    """
    for number, record in enumerate(records, 1):
        refusals: list[str] = []
        known = lowerings.get(record.key.lowering, ())
        for lowering in known:
            try:
                lowering.require_knobs(record.knobs)
            except ValueError as error:
                refusals.append(str(error))
        if known and len(refusals) == len(known):
            raise BadRecord(
                f"{path}:{number}: {refusals[0]}; add it with the lostwax that wrote it, or ask"
                " for a report that `lostwax bring-up` wrote"
            )


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a report comes from: the model of device, and the lostwax that made it."""

    sku: str
    version: str


def origin(path: Path, records: Sequence[Record]) -> Origin:
    """The one device and the one lostwax that all records of a report are of: one or more.

    BadRecord where a line does not say, or says something else than the first.
    """
    found = [
        Origin(each.key.sku, each.certificate.tool_versions.get("lostwax", "")) for each in records
    ]
    for number, here in enumerate(found, 1):
        if not here.sku or not here.version:
            raise BadRecord(
                f"{path}:{number} does not say on which device or by which lostwax it was made;"
                " ask for a report that `lostwax bring-up` wrote"
            )
        if here != found[0]:
            raise BadRecord(
                f"{path}:{number} is of a {here.sku} by lostwax {here.version}, and the lines"
                f" before are of a {found[0].sku} by {found[0].version}; take each report by itself"
            )
    return found[0]
