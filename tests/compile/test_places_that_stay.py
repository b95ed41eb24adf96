"""An -o that keeps its place: artifacts take a folder's name, reports and containers fill it."""

from __future__ import annotations

import errno
import os
from functools import partial
from pathlib import Path

import pytest
from command_line import Run, lostwax, one_sentence

from lostwax.backends import artifact_writer
from lostwax.backends.artifact_writer import ArtifactUnwritable, atomic_folder
from lostwax.cli.default_model import default_checkpoint


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return partial(lostwax, capsys)


@pytest.mark.parametrize("given", [".", ""])
def test_an_artifact_takes_not_the_place_of_a_shell_s_folder(
    given: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, _, err = run("compile", default_checkpoint(), "-o", given or tmp_path)
    assert status == 1
    assert "is the current folder, which another folder cannot take the place of; give an -o" in (
        one_sentence(err)
    )


def test_a_mount_is_refused_before_the_compile(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_mount(path: Path) -> bool:
        return path == tmp_path

    monkeypatch.setattr(Path, "is_mount", is_mount)
    status, _, err = run("compile", default_checkpoint(), "-o", tmp_path)
    assert status == 1
    assert "is a mount, which another folder cannot take the place of" in one_sentence(err)


def test_what_cannot_be_renamed_is_said_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a bind mount within one file system, which does not show."""

    def busy(_: Path, folder: Path) -> None:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(folder))

    monkeypatch.setattr(artifact_writer, "put_in_place", busy)
    with (
        pytest.raises(ArtifactUnwritable, match="; give an -o that is no mount, such as a"),
        atomic_folder(tmp_path / "out"),
    ):
        pass
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_there_is_filled_whoever_may_write_around_it(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.mkdir()

    def access(path: Path, mode: int) -> bool:
        del mode
        return path == out

    monkeypatch.setattr("lostwax.cli.named_paths.os.access", access)
    status, _, err = run("container", "cpu", "-o", out)
    assert status == 0, err
    status, _, err = run("container", "cpu", "-o", tmp_path / "other")
    assert status == 1
    assert "may not be written; give another path" in one_sentence(err)
