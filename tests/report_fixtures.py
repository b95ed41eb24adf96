"""Reports as a bring-up leaves them, for tests of `lostwax records add`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

import lostwax as package
from lostwax.backends.records.report import ReportWriter
from lostwax.ir.contract.record import Certificate, Record, RecordKey

PROVEN = Certificate(
    state="executed",
    max_error=0.001,
    rms_error=0.0001,
    input_digest="ab" * 32,
    binary_digest="cd" * 32,
    tool_versions={"lostwax": package.__version__, "torch": "2.13.0"},
)
Write = Callable[..., Path]
LOWERING = "portable_index_topk"


def record(lowering: str = LOWERING, **changed: object) -> Record:
    key = RecordKey(
        region="r" * 64,
        lowering=lowering,
        source="s" * 64,
        sku="MI300X",
        libraries={"torch": "2.13.0"},
        values={"x": "f32 [8]"},
        cache="",
    )
    return replace(Record(key=key, certificate=PROVEN), **changed)


def of(sku: str) -> Record:
    return record(key=replace(record().key, sku=sku))


def proven(**changed: object) -> Record:
    return record(certificate=replace(PROVEN, **changed))


def by(version: str) -> Record:
    return record(certificate=replace(PROVEN, tool_versions={"lostwax": version}))


@pytest.fixture
def report(tmp_path: Path) -> Write:
    """Write a report as `bring-up` does: a folder of one target's records."""

    def write(
        records: Sequence[Record],
        target: str = "rocm-gfx942",
        wrong: Sequence[str] = (),
        *,
        expected: int | None = None,
        ended: bool = True,
        sku: str = "MI300X",
        right: int = 1,
    ) -> Path:
        folder = tmp_path / "report"
        folder.mkdir()
        writer = ReportWriter(folder / "records.jsonl")
        for each in records:
            writer.add(each)
        check = {"name": "run", "ok": True, "text": "on an AMD Instinct MI300X"}
        health = {"target": target, "arch": "gfx942", "compile": check, "run": check, "sku": sku}
        doctor = {"machine": [], "targets": [health]}
        (folder / "doctor.json").write_text(json.dumps(doctor))
        sites = [{"lowering": "x", "error": error} for error in (*[None] * right, *wrong)]
        lines = [
            {"expected": expected or len(sites)},
            *sites,
            *([{"ended": True}] if ended else []),
        ]
        (folder / "certify.jsonl").write_text("".join(json.dumps(s) + "\n" for s in lines))
        return folder

    return write
