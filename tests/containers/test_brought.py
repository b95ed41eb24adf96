"""What is brought into a container's folder: what was checked alone, and readable for all."""

from __future__ import annotations

import os
import shutil
import stat
from functools import partial
from pathlib import Path

import msgspec
import pytest
from command_line import Run, listing, lostwax, one_sentence
from small_fixtures import Compiled, CompileSmall

from lostwax.backends.records.store import RecordStore, record_files
from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.containers.describe import containers, served_by
from lostwax.containers.render import Asked, default_image, rendered
from lostwax.containers.write import WHEEL
from lostwax.ir.contract.artifact import CheckpointNote
from lostwax.ir.contract.record import Certificate, Record, RecordKey

PINNED = f"python@sha256:{'a' * 64}"
KNOWN = containers()


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return partial(lostwax, capsys)


def page_of(name: str) -> str:
    container = KNOWN[name]
    return rendered(container, Asked(default_image(container)))["README.md"].decode()


def some_records(folder: Path) -> tuple[Path, Path]:
    """A folder with one record, and where its file lies in there."""
    key = RecordKey(
        region="r", lowering="x", source="s", sku="H200", libraries={}, values={}, cache=""
    )
    RecordStore((folder,)).put(Record(key=key, certificate=Certificate(state="compiled")))
    (path,) = record_files(folder)
    return folder, path.relative_to(folder)


def test_the_folder_holds_what_was_brought(
    run: Run, tmp_path: Path, small_artifact: Compiled
) -> None:
    wheel = tmp_path / WHEEL
    wheel.write_bytes(b"a wheel")
    records, name = some_records(tmp_path / "records")
    out = tmp_path / "out"
    given = ("--artifact", small_artifact.artifact, "--wheel", wheel, "--records", records)
    status, printed, err = run("container", "cpu", "-o", out, *given, "--base-image", PINNED)
    assert status == 0, err
    assert str(out / "README.md") in printed
    there = listing(out)
    assert {"Dockerfile", "artifact/manifest.json", f"wheel/{WHEEL}", "wheels"} <= set(there)
    assert f"records/{name}" in there
    assert f"ARG BASE_IMAGE={PINNED}\n" in (out / "Dockerfile").read_text()
    assert "ARTIFACT" not in (out / "README.md").read_text()
    assert "name: artifact" not in (out / "kubernetes" / "deployment.yaml").read_text()


def test_only_what_the_manifest_names_is_written(
    run: Run, tmp_path: Path, small_artifact: Compiled
) -> None:
    artifact = tmp_path / "artifact"
    shutil.copytree(small_artifact.artifact, artifact)
    (tmp_path / "secret").write_text("of the builder")
    (artifact / "link").symlink_to(tmp_path / "secret")
    (artifact / "certificates.json").write_text("{}")
    files = {"model.safetensors": "ab" * 32}
    note = CheckpointNote(path=str(small_artifact.checkpoint), files=files)
    (artifact / "checkpoint.json").write_bytes(msgspec.json.encode(note))
    records, name = some_records(tmp_path / "records")
    (records / "notes.txt").symlink_to(tmp_path / "secret")
    out = tmp_path / "out"
    given = ("--artifact", artifact, "--records", records)
    status, _, err = run("container", "cpu", "-o", out, *given)
    assert status == 0, err
    reader = ArtifactReader(out / "artifact")
    reader.verify_all()
    named = {*reader.manifest.files, "manifest.json", "checkpoint.json"}
    written = (out / "artifact").rglob("*")
    assert {str(p.relative_to(out / "artifact")) for p in written if p.is_file()} == named
    assert listing(out / "records") == sorted([str(name.parent), str(name)])
    assert reader.note() == CheckpointNote(path="/checkpoint", files=files)


@pytest.mark.parametrize(
    ("name", "damage"),
    [("weights.json", "does not match its digest"), ("manifest.json", "its own digest")],
)
def test_a_damaged_artifact_is_no_image_s_and_leaves_nothing(
    name: str, damage: str, run: Run, tmp_path: Path, small_artifact: Compiled
) -> None:
    artifact = tmp_path / "artifact"
    shutil.copytree(small_artifact.artifact, artifact)
    content, digest = (artifact / name).read_bytes(), small_artifact.manifest.digest.encode()
    (artifact / name).write_bytes(content.replace(digest, b"0" * 64) + b" ")
    status, _, err = run("container", "cpu", "-o", tmp_path / "out", "--artifact", artifact)
    assert status == 1
    assert damage in one_sentence(err)
    assert [path.name for path in tmp_path.iterdir()] == ["artifact"]


@pytest.mark.parametrize("option", ["--artifact", "--records", "--wheels"])
def test_a_folder_inside_what_goes_into_it_is_refused(
    option: str, run: Run, tmp_path: Path, small_artifact: Compiled
) -> None:
    source = tmp_path / "source"
    shutil.copytree(small_artifact.artifact, source)
    given = [option, source]
    if option == "--records":
        given += ["--artifact", small_artifact.artifact]
    before = listing(tmp_path)
    status, _, err = run("container", "cpu", "-o", source / "in" / "it", *given)
    assert status == 1
    assert "which goes into it; give another -o" in one_sentence(err)
    assert listing(tmp_path) == before


@pytest.mark.parametrize("linked", ["source", "out"])
def test_a_folder_is_the_same_by_whatever_name(
    linked: str, run: Run, tmp_path: Path, small_artifact: Compiled
) -> None:
    folder, link = tmp_path / "folder", tmp_path / "link"
    shutil.copytree(small_artifact.artifact, folder)
    link.symlink_to(folder)
    source, out = (link, folder) if linked == "source" else (folder, link)
    before = listing(tmp_path)
    status, _, err = run("container", "cpu", "-o", out / "in", "--artifact", source)
    assert status == 1
    assert "which goes into it; give another -o" in one_sentence(err)
    assert listing(tmp_path) == before


@pytest.mark.parametrize("made", ["a.tar.gz", "folder.whl", "link.whl"])
def test_what_is_no_package_s_file_is_refused(made: str, run: Run, tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (tmp_path / "secret").touch()
    match made:
        case "folder.whl":
            (wheels / made).mkdir()
        case "link.whl":
            (wheels / made).symlink_to(tmp_path / "secret")
        case _:
            (wheels / made).touch()
    status, _, err = run("container", "cpu", "-o", tmp_path / "out", "--wheels", wheels)
    assert status == 1
    assert f"{made} is no file of a package (NAME.whl)" in one_sentence(err)
    assert {path.name for path in tmp_path.iterdir()} == {"wheels", "secret"}


def test_records_that_are_none_are_refused(
    run: Run, tmp_path: Path, small_artifact: Compiled
) -> None:
    records, name = some_records(tmp_path / "records")
    given = ("--artifact", small_artifact.artifact, "--records", records)
    (records / name).write_text("{}\n")
    status, _, err = run("container", "cpu", "-o", tmp_path / "out", *given)
    assert (status, "is damaged" in one_sentence(err)) == (1, True)
    (records / name).unlink()
    status, _, err = run("container", "cpu", "-o", tmp_path / "out", *given)
    assert (status, "holds no records" in one_sentence(err)) == (1, True)
    assert not (tmp_path / "out").exists()


def test_the_image_s_user_may_read_all_of_it_whatever_the_umask(
    run: Run, tmp_path: Path, small_artifact: Compiled
) -> None:
    wheel = tmp_path / WHEEL
    wheel.touch(0o600)
    records, _ = some_records(tmp_path / "records")
    given = ("--artifact", small_artifact.artifact, "--wheel", wheel, "--records", records)
    before = os.umask(0o077)
    try:
        assert run("container", "cpu", "-o", tmp_path / "out", *given)[0] == 0
    finally:
        os.umask(before)
    for path in (tmp_path / "out", *(tmp_path / "out").rglob("*")):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o755 if path.is_dir() else 0o644), path


def test_an_artifact_with_captured_steps_is_served_by_its_device_s_container(
    run: Run, tmp_path: Path, compile_small: CompileSmall
) -> None:
    assert served_by(KNOWN["ascend-a2"]) == ("ascend-910b", "ascend-910b-npugraph")
    assert served_by(KNOWN["cpu"]) == ("cpu",)
    compile_small(tmp_path / "artifact", target="ascend-910b-npugraph")
    out = tmp_path / "out"
    status, _, err = run("container", "ascend-a2", "-o", out, "--artifact", tmp_path / "artifact")
    assert status == 0, err
    page = (out / "README.md").read_text()
    assert "Serves artifacts of the target `ascend-910b-npugraph` (" in page
    assert "bring-up ascend-910b-npugraph" in page
    assert 'target="ascend-910b-npugraph"' in (out / "Dockerfile").read_text()
    mounted = page_of("ascend-a2")
    assert "an artifact of `ascend-910b` or `ascend-910b-npugraph`." in mounted
    other = ("container", "ascend-a3", "-o", tmp_path / "no", "--artifact", tmp_path / "artifact")
    assert "was compiled for ascend-910b-npugraph, and this" in one_sentence(run(*other)[2])


@pytest.mark.parametrize("name", KNOWN)
def test_a_page_says_whose_the_device_nodes_are(name: str) -> None:
    device, page = KNOWN[name].device, page_of(name)
    assert bool(device.which) == bool(device.nodes)
    assert device.which in page
    gives_every = any(node in ("/dev/dri", "/dev") for node in device.nodes)
    assert ("are those of every GPU" in page) == gives_every
    assert ("are those of one device" in page) == (bool(device.nodes) and not gives_every)
