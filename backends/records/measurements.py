"""Tuning records as prices. Reads the store, measures nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from lostwax.backends.plan.candidate import Candidate
from lostwax.backends.plan.price import Measurements, NoMeasurements
from lostwax.backends.records.record_key import record_key
from lostwax.backends.records.store import (
    BadRecord,
    RecordStore,
    fastest,
    read_records,
    record_files,
)
from lostwax.backends.runtime.driver import DeviceUnavailable


class NoRecords(ValueError):
    """The records that were named do not exist; the message says what to give."""


class RecordedMeasurements:
    """Satisfies `lostwax.backends.plan.price.Measurements` from a record store, for one SKU.

    Records of state `executed` decide; others only where a key has no executed one.
    """

    def __init__(self, folder: Path, sku: str) -> None:
        self._sku = sku
        self._store = RecordStore((folder,))
        # Read once, so that a damaged file stops the compile and lowerings without any record are
        # told apart before their sources are digested.
        records = [r for path in record_files(folder) for r in read_records(path)]
        skus = {r.key.sku for r in records}
        if skus and sku not in skus:
            raise NoRecords(
                f"{folder} has no record of a {sku}, it has those of {', '.join(sorted(skus))};"
                " measure there, or name with --sku what the artifact is to run on"
            )
        self._known = {(r.key.region, r.key.lowering) for r in records if r.key.sku == sku}

    def best(self, candidate: Candidate) -> tuple[float, Mapping[str, int]] | None:
        """Median microseconds and every knob of the fastest record, None without one."""
        lowering = candidate.lowering
        if lowering is None or (candidate.region.digest(), candidate.name) not in self._known:
            return None
        records = self._store.find(record_key(candidate, self._sku))
        executed = [r for r in records if r.certificate.state == "executed"]
        found = fastest(executed or records)
        if found is None or found.median_us is None:
            return None
        try:
            lowering.require_knobs(found.knobs)
        except ValueError as error:
            raise BadRecord(
                f"a record of {lowering.name} cannot be taken ({error}); delete"
                f" {found.key.digest()}.jsonl and tune again"
            ) from error
        return found.median_us, {**lowering.default_knobs(), **found.knobs}


def open_measurements(path: Path | None, sku: Callable[[], str]) -> Measurements:
    """The records in a folder (default: the shipped tier, which is empty as yet).

    `sku` is asked where there are records to take: what the artifact is to run on. Where it raises
    DeviceUnavailable, NoRecords has the reason.
    """
    if path is None:
        return NoMeasurements()
    if not path.is_dir():
        raise NoRecords(
            f"{path} is no folder of records; give the folder that holds the XX/KEY.jsonl files"
        )
    try:
        device = sku()
    except DeviceUnavailable as error:
        raise NoRecords(
            f"the records in {path} are of models of devices, and the target's device is not here"
            f" ({error.lack}); name with --sku what the artifact is to run on, such as --sku H200"
        ) from error
    return RecordedMeasurements(path, device)
