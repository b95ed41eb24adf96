"""`lostwax records add`: what is filed, what is told, and that nothing is written before."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
from command_line import Run, lostwax, one_sentence
from report_fixtures import LOWERING, PROVEN, Write, by, of, record

import lostwax as package
from lostwax.backends.records.store import RecordStore
from lostwax.ir.contract.record import Certificate, Record

ERROR = "portable_topk is wrong on dsa.topk: output idx differs"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return partial(lostwax, capsys)


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
        "seen": 2,
        "expected": 2,
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
        ([of("")], "records.jsonl:1 does not say on which device or by which lostwax"),
        ([by("")], "records.jsonl:1 does not say on which device or by which lostwax"),
        ([record(), of("MI355X")], "records.jsonl:2 is of a MI355X by lostwax"),
        ([record(), by("0.0.9")], "by lostwax 0.0.9, and the lines before are of a MI300X by"),
    ],
)
def test_records_of_no_device_or_of_several_are_refused(
    records: list[Record], said: str, run: Run, report: Write, tmp_path: Path
) -> None:
    folder = report(records, wrong=[ERROR])
    status, out, err = run("records", "add", folder, "-o", tmp_path / "store")
    assert (status, out) == (1, "")
    assert said in one_sentence(err)
    assert f"WRONG {ERROR}" in err, "told whatever becomes of the records"
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


NO_RECORD = {
    "all wrong": (
        {"wrong": [ERROR, ERROR]},
        "holds no record: all 2 sites that were tried were wrong, as is said above",
    ),
    "cut off": (
        {"wrong": [ERROR, ERROR], "expected": 96, "ended": False},
        "all 2 sites that were tried were wrong (2 of 96 sites, not finished)",
    ),
    "dead in the first": (
        {"expected": 96, "ended": False},
        "holds no record: no site came to its end (0 of 96 sites, not finished); ask for what the",
    ),
    "one of each": (
        {"wrong": [ERROR, ERROR], "right": 1, "expected": 96, "ended": False},
        "by certify.jsonl beside it 1 sites were right (3 of 96 sites, not finished); ask for the",
    ),
    "records cut off": ({"right": 3}, "by certify.jsonl beside it 3 sites were right; ask for the"),
}


@pytest.mark.parametrize("name", NO_RECORD)
def test_a_report_without_a_record_says_what_was_wrong_and_how_far_it_came(
    name: str, run: Run, report: Write, tmp_path: Path
) -> None:
    written, said = NO_RECORD[name]
    folder = report([], **{"right": 0, **written})
    status, out, err = run("records", "add", folder, "-o", tmp_path / "store")
    assert (status, out) == (1, "")
    assert said in one_sentence(err)
    wrong = 2 if "wrong" in written else 0
    assert err.count(f"WRONG {ERROR}\n") == wrong
    told = json.loads(run("records", "add", folder, "-o", tmp_path / "store", "--json")[1])
    seen = wrong + int(str(written.get("right", 0)))
    whole = {"expected": written.get("expected", seen), "finished": written.get("ended", True)}
    assert told.items() >= ({"records": 0, "wrong": wrong, "seen": seen} | whole).items()
    assert not (tmp_path / "store").exists()


def test_without_a_record_and_sites_nobody_knows_what_was_tried(
    run: Run, report: Write, tmp_path: Path
) -> None:
    folder = report([])
    _, _, err = run("records", "add", folder / "records.jsonl", "-o", tmp_path / "store")
    assert "holds no record, and only the whole folder says why; give that" in one_sentence(err)
    (folder / "certify.jsonl").unlink()
    _, _, err = run("records", "add", folder, "-o", tmp_path / "store")
    assert "no certify.jsonl beside it: no lowering was tried; ask for" in one_sentence(err)


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
