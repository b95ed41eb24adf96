"""`lostwax records add`: what no bring-up writes, what is damage, and that nothing is written."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path

import pytest
from command_line import Run, listing, lostwax, one_sentence
from msgspec.structs import replace
from report_fixtures import PROVEN, Write, of, proven, record

from lostwax.backends.proof.tolerance import LOOSEST
from lostwax.backends.records.report import MAX_BYTES
from lostwax.ir.contract.record import Certificate


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return partial(lostwax, capsys)


BEYOND = {
    "max_error": math.nextafter(LOOSEST.max_error, 1),
    "rms_error": math.nextafter(LOOSEST.rms_error, 1),
    "agreement": math.nextafter(LOOSEST.agreement, 0),
}
"""By as little as can be: of each bound the least that is refused."""
NOT_WRITTEN = {
    "samples": (record(samples_us=(1.0, 2.0)), "holds times, which a bring-up does not measure"),
    "no such value": (record(knobs={"row_tile": -7}), "no setting row_tile=-7"),
    "no such knob": (record(knobs={"fast": 1}), "no setting fast=1"),
    "far": (proven(max_error=1e9), "has errors of 1000000000.0 max"),
    "far on the whole": (proven(rms_error=0.2), "no lowering may be beyond 0.1 max, 0.04 RMS"),
    "sets": (proven(set_agreement=0.0), "has sets that agree in 0.0% of rows, and no lowering may"),
    "too few": (
        proven(set_agreement=BEYOND["agreement"]),
        "of rows, and no lowering may have fewer",
    ),
    "max": (proven(max_error=BEYOND["max_error"]), "and no lowering may be beyond"),
    "rms": (proven(rms_error=BEYOND["rms_error"]), "and no lowering may be beyond"),
    "another device": (of("MI355X"), "is of a MI355X, and"),
    "an architecture": (of("gfx942"), "is of a gfx942, and"),
}


@pytest.mark.parametrize("name", NOT_WRITTEN)
@pytest.mark.parametrize("is_whole", [True, False])
def test_what_no_bring_up_writes_is_refused(
    name: str, is_whole: bool, run: Run, report: Write, tmp_path: Path
) -> None:
    wrong, said = NOT_WRITTEN[name]
    folder = report([wrong])
    given = folder if is_whole else folder / "records.jsonl"
    status, out, err = run("records", "add", given, "-o", tmp_path / "store")
    if "is of a" in said and not is_whole:  # nothing beside the records says which it was
        assert status == 0, err
        return
    assert (status, out) == (1, "")
    assert said in one_sentence(err)
    assert "records.jsonl:1" in one_sentence(err)
    assert not (tmp_path / "store").exists()


def test_what_is_on_every_bound_is_filed(run: Run, report: Write, tmp_path: Path) -> None:
    on = proven(
        max_error=LOOSEST.max_error, rms_error=LOOSEST.rms_error, set_agreement=LOOSEST.agreement
    )
    status, _, err = run("records", "add", report([on]), "-o", tmp_path / "store")
    assert status == 0, err


def test_the_bounds_are_those_of_the_loosest_lowering() -> None:
    """0.05 of bf16 and 0.02 of what rounds between, twice by a waiver; sets as bf16's."""
    assert (LOOSEST.max_error, LOOSEST.rms_error, LOOSEST.agreement) == (0.1, 0.04, 0.9)


@pytest.mark.parametrize(
    ("field", "value"), [("max_error", -1), ("rms_error", -0.5), ("set_agreement", 1.5)]
)
def test_an_error_that_cannot_be_is_damage(
    field: str, value: float, run: Run, report: Write, tmp_path: Path
) -> None:
    folder = report([record()])
    lines = folder / "records.jsonl"
    changed = json.loads(lines.read_text())
    changed["certificate"][field] = value
    lines.write_text(json.dumps(changed) + "\n")
    status, out, err = run("records", "add", folder, "-o", tmp_path / "store")
    assert (status, out) == (1, "")
    assert "records.jsonl:1 is damaged (" in one_sentence(err)


def test_what_never_ran_is_of_an_architecture(run: Run, report: Write, tmp_path: Path) -> None:
    weak = Certificate(state="compiled", tool_versions=PROVEN.tool_versions)
    folder = report([replace(of("gfx942"), certificate=weak)], sku="")
    status, out, err = run("records", "add", folder, "-o", tmp_path / "store")
    assert status == 0, err
    assert "1 records of gfx942 for rocm-gfx942: 1 compiled" in out


@pytest.mark.parametrize("sku", ["", "gfx942"])
def test_what_ran_is_of_the_device_that_was_opened(
    sku: str, run: Run, report: Write, tmp_path: Path
) -> None:
    status, _, err = run("records", "add", report([record()], sku=sku), "-o", tmp_path / "store")
    assert status == 1
    assert f"of {sku or 'no device that was opened'}: files of two reports" in one_sentence(err)


def test_another_target_is_refused(run: Run, report: Write, tmp_path: Path) -> None:
    folder = report([record()], target="rocm-gfx999")
    status, _, err = run("records", "add", folder, "-o", tmp_path / "store")
    assert status == 1
    assert "doctor.json is of another lostwax: unknown target 'rocm-gfx999'" in one_sentence(err)
    assert not (tmp_path / "store").exists()


TORN = "records.jsonl is torn"
DAMAGE = {
    "records.jsonl": {
        b'{"schema":3}\n': "records.jsonl:1 has schema 3, this version reads up to 2; upgrade",
        b'{"schema":1}\n': "records.jsonl:1 has schema 1",
        b'{"schema":2}\n': "records.jsonl:1 is damaged",
        b"[" * 100_000 + b"\n": "records.jsonl:1 is damaged",
        b'{"schema":2': TORN,
    },
    "doctor.json": {
        b"{}": "doctor.json is damaged",
        b'{"machine": [], "targets": []}': "doctor.json is of 0 targets; a report is of one",
        b" " * ((1 << 20) + 1): "at most 1048576 are read; ask for the whole folder",
    },
    "certify.jsonl": {
        b'{"error": 1}\n': "certify.jsonl:1 is damaged",
        b"": "certify.jsonl:1 is damaged",
        b'{"expected": 1}\n{"error": 1}\n': "certify.jsonl:2 is damaged",
        b'{"expected": 1}\n{"ended": false}\n': "certify.jsonl:2 is damaged (it is neither a site",
        b'{"expected": 1}\n{"ended": true}\n{"error": null}\n': "certify.jsonl:3 is damaged",
    },
}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [(name, content, said) for name, each in DAMAGE.items() for content, said in each.items()],
    ids=lambda value: value[:20] if isinstance(value, str) else "",
)
def test_damage_is_named_before_anything_is_written(
    name: str, content: bytes, said: str, run: Run, report: Write, tmp_path: Path
) -> None:
    folder = report([record()])
    (folder / name).write_bytes(content)
    status, out, err = run("records", "add", folder, "-o", tmp_path / "store")
    assert (status, out) == (1, "")
    assert said in one_sentence(err)
    assert not (tmp_path / "store").exists()


def test_what_is_too_large_is_not_read(run: Run, report: Write, tmp_path: Path) -> None:
    path = report([record()]) / "records.jsonl"
    with path.open("r+b") as file:
        file.truncate(MAX_BYTES + 1)  # a hole: it takes no room
    status, _, err = run("records", "add", path, "-o", tmp_path / "store")
    assert status == 1
    assert f"and at most {MAX_BYTES} are read; ask for it again" in one_sentence(err)


def test_what_is_no_report_is_refused_with_what_to_give(
    run: Run, report: Write, tmp_path: Path
) -> None:
    folder = report([record()])
    (folder / "doctor.json").unlink()
    (tmp_path / "empty").mkdir()
    (tmp_path / "report.tar.gz").touch()
    for given, said in (
        (folder, "doctor.json does not exist; ask for the whole folder, or give its records.jsonl"),
        (tmp_path / "empty", "has no records.jsonl: it is no report, or nothing could run"),
        (tmp_path / "report.tar.gz", "report.tar.gz is packed; unpack it (tar xzf "),
        (tmp_path / "no", "does not exist; give a file"),
    ):
        status, _, err = run("records", "add", given, "-o", tmp_path / "store")
        assert status == 1
        assert said in one_sentence(err)
    assert "store" not in listing(tmp_path)
