"""Evidence is made once a device, read from then on, and never better than what ran."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from small import PROMPT, plan
from small_fixtures import Compiled, CompileSmall

from lostwax.backends.proof.certify import certify_artifact, keep_evidence
from lostwax.backends.runtime import boot_check
from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.backends.runtime.boot_check import (
    Admission,
    Unproven,
    add_evidence,
    check_boot,
    code_digest,
)
from lostwax.backends.runtime.certificates import read_certificates, write_certificates
from lostwax.backends.runtime.load import load
from lostwax.ir.contract.probe import STEP_EVIDENCE, Certificates, Evidence

PACKAGES = ("lostwax.backends.cpu.kernels", "lostwax.backends.portable.kernels")


class Device:
    """A device that can only be told apart: probes are not run by these tests."""

    def __init__(self, fingerprint: str = "one") -> None:
        self.fingerprint = fingerprint


@pytest.fixture
def copy(small_artifact: Compiled, tmp_path: Path) -> Path:
    return shutil.copytree(small_artifact.artifact, tmp_path / "art")


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of probes as they run, without running them, and the step around the layers."""
    ids: list[str] = []

    def prove(reader: object, driver: object) -> Evidence:
        ids.append(STEP_EVIDENCE)
        return Evidence(state="executed")

    def run(probe: object, driver: object) -> Evidence:
        ids.append(probe.id)  # pyright: ignore[reportAttributeAccessIssue]  # a Probe
        return Evidence(state="executed", max_error=0.0, rms_error=0.0)

    monkeypatch.setattr(boot_check, "run_probe", run)
    monkeypatch.setattr(boot_check, "prove_step", prove)
    return ids


def _check(artifact: Path, device: Device, folder: Path | None = None):
    return check_boot(ArtifactReader(artifact), device, PACKAGES, folder)  # pyright: ignore[reportArgumentType]


def test_the_second_boot_runs_nothing(copy: Path, ran: list[str]) -> None:
    first = _check(copy, Device())
    assert first.ran == len(ran) > 20
    assert first.kept == copy / "certificates.json"
    second = _check(copy, Device())
    assert (second.ran, len(ran)) == (0, first.ran)
    assert second.certificates == first.certificates
    ArtifactReader(copy).verify_all()


def test_another_device_other_code_or_damage_runs_them_again(
    copy: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    count = _check(copy, Device()).ran
    assert _check(copy, Device("another")).ran == count
    (copy / "certificates.json").write_text("{")
    assert _check(copy, Device("another")).ran == count

    def other(packages: tuple[str, ...]) -> str:
        return "other"

    monkeypatch.setattr(boot_check, "code_digest", other)
    assert _check(copy, Device("another")).ran == count
    assert _check(copy, Device("another")).ran == 0


def test_another_version_of_a_package_that_is_called_runs_them_again(
    copy: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver's fingerprint knows none of the packages that an artifact calls."""
    reader = ArtifactReader(copy)
    calls = msgspec.structs.replace(reader.manifest, requires={"amd-aiter": ("aiter_route",)})
    monkeypatch.setattr(reader, "manifest", calls)
    for version in ("1", "2"):
        monkeypatch.setattr(boot_check, "installed_version", {"amd-aiter": version}.get)
        report = check_boot(reader, Device(), PACKAGES)  # pyright: ignore[reportArgumentType]
        assert report.ran > 20
        assert report.certificates.device == f"one, amd-aiter {version}"


def test_what_ran_here_is_not_written_over(copy: Path, ran: list[str]) -> None:
    report = _check(copy, Device())
    (first, *_) = report.certificates.evidence
    other = Evidence(state="executed", max_error=0.5, rms_error=0.5)
    again = add_evidence(
        ArtifactReader(copy),
        Device(),  # pyright: ignore[reportArgumentType]
        PACKAGES,
        {first: other, "no probe's": other},
    )
    assert again.certificates == report.certificates
    assert read_certificates(copy / "certificates.json") == report.certificates


def test_the_code_digest_covers_every_host_function(tmp_path: Path) -> None:
    assert code_digest(PACKAGES) == code_digest(PACKAGES)
    assert code_digest(PACKAGES[:1]) != code_digest(PACKAGES)


def test_a_read_only_artifact_keeps_its_evidence_where_it_is_told(
    copy: Path, ran: list[str], tmp_path: Path
) -> None:
    (copy / "certificates.json").mkdir()  # so that no file of that name can be made: even by root
    digest = ArtifactReader(copy).manifest.digest
    kept = _check(copy, Device(), tmp_path / "evidence").kept
    assert kept == tmp_path / "evidence" / f"{digest}.json"
    assert _check(copy, Device(), tmp_path / "evidence").ran == 0


def test_nowhere_to_write_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.json").mkdir()
    certificates = Certificates(artifact="a", device="d", code="c", evidence={})
    for path in (tmp_path / "file" / "certificates.json", tmp_path / "folder.json"):
        assert not write_certificates(certificates, path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.json"]
    assert read_certificates(tmp_path / "none") is None


def test_evidence_of_another_schema_is_made_again(tmp_path: Path) -> None:
    newer = Certificates(schema=9, artifact="a", device="d", code="c", evidence={})
    (tmp_path / "c.json").write_bytes(msgspec.json.encode(newer))
    assert read_certificates(tmp_path / "c.json") is None


def test_what_only_compiled_is_refused_unless_allowed(
    small_artifact: Compiled,
    tmp_path: Path,
    compile_small: CompileSmall,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lostwax.backends.proof.make_probes.MAX_ELEMENTS", 1000)
    compile_small(tmp_path / "art")
    said: list[str] = []

    def start(allow: bool):
        admission = Admission(None, allow, said.append)
        return load(tmp_path / "art", checkpoint=small_artifact.checkpoint, admission=admission)

    with pytest.raises(Unproven, match=r"only compiled, such as .*too large.*--allow-compiled"):
        start(False)
    runtime = start(True)
    expected = load(small_artifact.artifact, checkpoint=small_artifact.checkpoint)
    assert runtime.run(plan(PROMPT, 0)).ids == expected.run(plan(PROMPT, 0)).ids
    found = read_certificates(tmp_path / "art" / "certificates.json")
    assert found is not None
    assert {e.state for e in found.evidence.values()} == {"compiled", "executed"}
    keep_evidence(tmp_path / "art", certify_artifact(tmp_path / "art"))
    start(False)


def test_a_first_boot_on_this_machine_executes_every_lowering(
    copy: Path, small_artifact: Compiled
) -> None:
    said: list[str] = []
    admission = Admission(None, False, said.append)
    load(copy, checkpoint=small_artifact.checkpoint, admission=admission)
    load(copy, checkpoint=small_artifact.checkpoint, admission=admission)
    first, second = said
    assert "probes ran" in first
    assert "(read, 0.0" in second


@pytest.mark.parametrize("out", [None, "records"])
def test_what_is_interpreted_is_not_noted_and_the_command_says_so(
    copy: Path, out: str | None
) -> None:
    command = [sys.executable, "-m", "lostwax", "certify", str(copy), "--interpret", "--own-only"]
    command += ["-o", str(copy.parent / out)] if out else []
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (said,) = [line for line in done.stdout.splitlines() if "never executed" in line]
    where = f"records are in {copy.parent / out}" if out else "-o DIR would keep records"
    assert said == f"interpreted, never executed: nothing is noted in {copy}; {where}"
    assert not (copy / "certificates.json").exists()
