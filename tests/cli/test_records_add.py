"""`lostwax records add`: what is filed, what is refused, and that nothing is written before."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
from command_line import Run, listing, lostwax, one_sentence
from msgspec.structs import replace

import lostwax as package
from lostwax.backends.proof.tolerance import LOOSEST
from lostwax.backends.records.report import MAX_BYTES, ReportWriter
from lostwax.backends.records.store import RecordStore
from lostwax.ir.contract.record import Certificate, Record, RecordKey

ERROR = "portable_topk is wrong on dsa.topk: output idx differs"
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
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return partial(lostwax, capsys)


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
        sites = [{"lowering": "x", "error": error} for error in (None, *wrong)]
        lines = [
            {"expected": expected or len(sites)},
            *sites,
            *([{"ended": True}] if ended else []),
        ]
        (folder / "certify.jsonl").write_text("".join(json.dumps(s) + "\n" for s in lines))
        return folder

    return write


def test_what_was_proven_is_filed_and_what_was_wrong_is_told(
    run: Run, report: Write, tmp_path: Path
) -> None:
    sent = [record(), record("portable_norm"), record(knobs={"row_tile": 32})]
    folder, store = report(sent, wrong=[ERROR]), tmp_path / "store"
    status, out, err = run("records", "add", folder, "-o", store)
    assert status == 0, err
    assert "3 records of MI300X for rocm-gfx942: 3 executed, 1 wrong" in out
    assert f"{store}: 2 of 2 keys are new or have changed" in out
    assert f"WRONG {ERROR}" in err
    assert RecordStore((store,)).find(record().key) == (sent[0], sent[2])
    status, out, _ = run("records", "add", folder, "-o", store, "--json")
    assert json.loads(out) == {
        "target": "rocm-gfx942",
        "sku": "MI300X",
        "lostwax": package.__version__,
        "records": 3,
        "keys": 2,
        "changed": 0,
        "wrong": 1,
        "finished": True,
        "states": {"executed": 3},
    }


def test_a_line_that_comes_twice_is_one_record_and_the_stronger_stays(
    run: Run, report: Write, tmp_path: Path
) -> None:
    weak = record(certificate=Certificate(state="compiled", tool_versions=PROVEN.tool_versions))
    folder, store = report([weak, record(), record()]), tmp_path / "store"
    status, out, _ = run("records", "add", folder / "records.jsonl", "-o", store)
    assert status == 0
    assert "3 records of MI300X: 1 compiled, 2 executed\n" in out, (
        "of what was wrong it knows nothing"
    )
    assert "1 of 1 keys" in out
    assert RecordStore((store,)).find(record().key) == (record(),)


def test_what_this_lostwax_does_not_know_is_kept_and_said(
    run: Run, report: Write, tmp_path: Path
) -> None:
    folder = report([record(), record("a_new_one")])
    status, _, err = run("records", "add", folder, "-o", tmp_path / "store")
    assert status == 0
    assert "no lowering of rocm-gfx942 that is called a_new_one: never chosen" in err
    assert "made by lostwax" not in err
    assert LOWERING not in err


def test_a_report_of_another_version_is_taken_and_said(
    run: Run, report: Write, tmp_path: Path
) -> None:
    status, _, err = run("records", "add", report([by("0.0.9")]), "-o", tmp_path / "store")
    assert status == 0
    assert f"made by lostwax 0.0.9, and this is {package.__version__}: records of code" in err


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([], "records.jsonl holds no record: nothing was right on that device"),
        ([of("")], "records.jsonl:1 does not say on which device or by which lostwax"),
        ([by("")], "records.jsonl:1 does not say on which device or by which lostwax"),
        ([record(), of("MI355X")], "records.jsonl:2 is of a MI355X by lostwax"),
        ([record(), by("0.0.9")], "by lostwax 0.0.9, and the lines before are of a MI300X by"),
    ],
)
def test_records_of_no_device_or_of_several_are_refused(
    records: list[Record], said: str, run: Run, report: Write, tmp_path: Path
) -> None:
    status, out, err = run("records", "add", report(records), "-o", tmp_path / "store")
    assert (status, out) == (1, "")
    assert said in one_sentence(err)
    assert not (tmp_path / "store").exists()


BEFORE_THE_END = (
    ({"expected": 153}, "2 executed, 1 wrong, 2 of 153 sites, not finished"),
    ({"ended": False}, "2 executed, 1 wrong, 2 of 2 sites, not finished"),
    ({"expected": 153, "wrong": ()}, "2 executed, 1 of 153 sites, not finished"),
)


@pytest.mark.parametrize(("written", "said"), BEFORE_THE_END)
def test_a_run_that_did_not_end_is_told_so(
    written: dict[str, object], said: str, run: Run, report: Write, tmp_path: Path
) -> None:
    folder = report([record(), record("portable_norm")], **{"wrong": [ERROR], **written})
    status, out, err = run("records", "add", folder, "-o", tmp_path / "store")
    assert status == 0, err
    assert f"for rocm-gfx942: {said}\n" in out
    assert ", 0 wrong" not in out
    assert (
        json.loads(run("records", "add", folder, "-o", tmp_path / "store", "--json")[1])["finished"]
        is False
    )


def test_a_line_that_was_cut_short_is_no_site(run: Run, report: Write, tmp_path: Path) -> None:
    folder = report([record()])
    lines = folder / "certify.jsonl"
    lines.write_bytes(lines.read_bytes()[:-3])
    status, out, _ = run("records", "add", folder, "-o", tmp_path / "store")
    assert status == 0
    assert "1 executed, 1 of 1 sites, not finished\n" in out


def test_without_the_sites_nothing_is_said_to_be_right(
    run: Run, report: Write, tmp_path: Path
) -> None:
    folder = report([record()])
    (folder / "certify.jsonl").unlink()
    status, out, _ = run("records", "add", folder, "-o", tmp_path / "store")
    assert status == 0
    assert "1 executed, without certify.jsonl, so that nobody knows what was wrong\n" in out


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
