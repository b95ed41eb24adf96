"""`lostwax bring-up`: what it writes for whoever has the device, and that a store reads it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from command_line import Run, listing, lostwax, one_sentence
from report_fixtures import PROVEN
from report_fixtures import record as some_record
from small_fixtures import Compiled, CompileSmall

from lostwax.backends.proof.certify import Certified
from lostwax.backends.records.report import ReportWriter, read_report
from lostwax.backends.records.store import BadRecord, NewerRecord, RecordStore, record_files
from lostwax.cli import doctor
from lostwax.cli.doctor import Findings
from lostwax.cli.site_lines import SiteWriter
from lostwax.ir.contract.record import Record


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return partial(lostwax, capsys)


def in_store(records: tuple[Record, ...], folder: Path) -> None:
    """A store takes them, each is found under its key, and taking them again changes nothing."""
    store = RecordStore((folder,))
    keys = {record.key.digest() for record in records}
    assert store.take(records) == len(keys) > 0
    assert {path.stem for path in record_files(folder)} == keys
    for record in records:
        assert record.knobs in [found.knobs for found in store.find(record.key)]
    assert store.take(records) == 0


class Killed(BaseException):
    """As a kill: nothing behind it runs."""


def test_a_kill_leaves_no_site_that_was_right_without_its_record(
    run: Run, small_artifact: Compiled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = Certified("decode", "x", ("core.norm",), PROVEN, None, (), "", record=some_record())

    def sites(_: Path) -> Iterator[Certified]:
        yield right

    def killed(_: SiteWriter, line: dict[str, object]) -> None:
        if "lowering" in line:
            raise Killed

    def examined(*_: object, **__: object) -> None: ...

    monkeypatch.setattr("lostwax.cli.bring_up._examine", examined)
    monkeypatch.setattr("lostwax.backends.proof.certify.certify_artifact", sites)
    monkeypatch.setattr(SiteWriter, "add", killed)
    given = ("--artifact", small_artifact.artifact, "-o", tmp_path / "report")
    with pytest.raises(Killed):
        run("bring-up", "cpu", *given)
    assert (tmp_path / "report" / "records.jsonl").read_bytes().count(b"\n") == 1


def test_the_way_on_the_cpu_ends_in_a_report_that_the_store_takes(
    run: Run, small_artifact: Compiled, tmp_path: Path
) -> None:
    report = tmp_path / "report"
    given = ("--artifact", small_artifact.artifact, "--checkpoint", small_artifact.checkpoint)
    status, out, err = run("bring-up", "cpu", *given, "-o", report)
    assert status == 0, err
    assert f"send it back: tar czf report.tar.gz {report}" in out
    there = listing(report)
    assert {"records.jsonl", "doctor.json", "certify.jsonl", "bench/sweep.svg"} <= set(there)
    records = read_report(report / "records.jsonl")
    assert {record.certificate.state for record in records} == {"executed"}
    assert "cpu" not in {record.key.sku for record in records}, "the model of device, no arch"
    in_store(records, tmp_path / "store")
    status, out, err = run("records", "add", report, "-o", tmp_path / "filed")
    assert status == 0, err
    assert listing(tmp_path / "filed") == listing(tmp_path / "store")
    first, *sites, last = map(json.loads, (report / "certify.jsonl").read_text().splitlines())
    assert (first, last) == ({"expected": len(sites)}, {"ended": True})
    assert len(sites) == len(records)
    (doctor,) = json.loads((report / "doctor.json").read_text())["targets"]
    assert doctor["run"]["ok"]
    assert {doctor["sku"]} == {record.key.sku for record in records}
    for path in (report / "bench").glob("*.json"):
        load = json.loads(path.read_text())
        assert (load["completed"], load["failed"]) == (8, 0)


def test_the_same_way_without_a_device_says_that_nothing_ran(
    run: Run, compile_small: CompileSmall, small_checkpoint: Path, tmp_path: Path
) -> None:
    artifact, report = tmp_path / "artifact", tmp_path / "report"
    compile_small(artifact, target="null")
    given = ("--artifact", artifact, "--checkpoint", small_checkpoint)
    status, out, err = run("bring-up", "null", *given, "-o", report)
    assert status == 0, err
    records = read_report(report / "records.jsonl")
    assert f"{len(records)} sites compiled, none ran" in out
    for record in records:
        assert record.certificate.state == "compiled"
        assert record.certificate.max_error is None
        assert record.key.sku == "none"
    in_store(records, tmp_path / "store")
    assert len(list((report / "bench").glob("*.json"))) == 2


def test_a_link_in_the_place_of_what_the_machine_has_is_not_followed(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who else may write the folder puts it there after that was seen to be empty."""
    kept, report = tmp_path / "kept", tmp_path / "report"
    kept.write_text("the caller's")
    examine = doctor.examine

    def examined(*given: Any, **named: Any) -> Findings:
        found = examine(*given, **named)
        (report / "doctor.json").unlink(missing_ok=True)
        (report / "doctor.json").symlink_to(kept)
        return found

    monkeypatch.setattr(doctor, "examine", examined)
    status, _, _ = run("bring-up", "rocm-gfx942", "-o", report)
    assert status == 1
    assert kept.read_text() == "the caller's"
    assert listing(report) == ["doctor.json"]
    assert "rocm-gfx942" in (report / "doctor.json").read_text()


def test_a_device_that_is_not_here_is_said_and_kept(run: Run, tmp_path: Path) -> None:
    status, out, err = run("bring-up", "rocm-gfx942", "-o", tmp_path / "report")
    assert status == 1
    assert "rocm-gfx942 cannot be brought up here: " in one_sentence(err)
    assert "  lacks run" in out
    assert listing(tmp_path / "report") == ["doctor.json"]


def test_a_lowering_that_is_wrong_is_named_and_nothing_is_served(
    run: Run, torch_artifact: Compiled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lostwax.backends.portable.kernels import norms

    right = norms._normed  # pyright: ignore[reportPrivateUsage]

    def wrong(x: Any, weight: Any, out: Any, eps: float) -> None:
        right(x, weight, out, eps)
        out.mul_(2)

    monkeypatch.setattr(norms, "_normed", wrong)
    report = tmp_path / "report"
    status, out, err = run("bring-up", "cpu", "--artifact", torch_artifact.artifact, "-o", report)
    assert status == 1
    assert "lowerings are wrong on this device, so nothing was served" in err
    assert "WRONG " in err
    assert ", 0 wrong" not in out
    _, *sites, _ = map(json.loads, (report / "certify.jsonl").read_text().splitlines())
    wrongs = [site for site in sites if site["error"]]
    assert wrongs
    assert len(read_report(report / "records.jsonl")) == len(sites) - len(wrongs)
    assert not (report / "bench").exists()


@pytest.mark.parametrize(
    ("line", "said"),
    {
        "cpu --checkpoint CKPT": "--checkpoint goes with --artifact; give both or neither",
        "null --artifact ART": "was compiled for cpu, and null was named",
        "cqu": "unknown target 'cqu'. Did you mean 'cpu'?",
    }.items(),
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    line: str, said: str, run: Run, small_artifact: Compiled, tmp_path: Path
) -> None:
    places = {"ART": small_artifact.artifact, "CKPT": small_artifact.checkpoint}
    words = [places.get(word, word) for word in line.split()]
    status, out, err = run("bring-up", *words, "-o", tmp_path / "report")
    assert (status, out) == (1, "")
    assert said in one_sentence(err)
    assert not (tmp_path / "report").exists()


def test_a_report_that_is_torn_or_of_another_schema_is_refused(
    run: Run, small_artifact: Compiled, tmp_path: Path
) -> None:
    from lostwax.backends.proof.planned_records import planned_records

    path = tmp_path / "records.jsonl"
    writer = ReportWriter(path)
    made = list(planned_records(small_artifact.artifact))
    for number, record in enumerate(made, 1):
        writer.add(record)
        assert len(read_report(path)) == number, "a line is there before the next is made"
    assert read_report(path) == tuple(made)
    with pytest.raises(FileExistsError):
        ReportWriter(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    with pytest.raises(BadRecord, match=r"is torn .*; ask for it again, or remove that line"):
        read_report(path)
    path.write_bytes(whole.replace(b'"schema":2', b'"schema":3', 1))
    with pytest.raises(NewerRecord, match=r"records\.jsonl:\d+ has schema 3"):
        read_report(path)
    path.write_bytes(whole.replace(b'"compiled"', b'"executed"', 1))
    with pytest.raises(BadRecord, match="a certificate of state 'executed' needs errors"):
        read_report(path)
