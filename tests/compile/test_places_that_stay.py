"""An -o that keeps its place: artifacts take a folder's name, reports and containers fill it."""

from __future__ import annotations

import errno
import os
from functools import partial
from pathlib import Path

import pytest
from command_line import Run, listing, lostwax, one_sentence

from lostwax.backends import artifact_writer
from lostwax.backends.artifact_writer import (
    ArtifactExists,
    ArtifactUnwritable,
    atomic_folder,
    require_place,
    require_replaceable,
)
from lostwax.cli.default_model import default_checkpoint


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return partial(lostwax, capsys)


@pytest.fixture
def shell_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of an artifact that a shell is in, and a link to the artifact beside it."""
    art = tmp_path / "art"
    here = art / "kernels" / "x"
    here.mkdir(parents=True)
    (art / "manifest.json").touch()
    (tmp_path / "link").symlink_to(art)
    monkeypatch.chdir(here)
    return here


@pytest.mark.parametrize(
    ("given", "holds"),
    [(".", "is"), ("", "is"), ("../../../link/kernels/x", "is"), ("../../../art", "holds"),
     ("../..", "holds"), ("../../../link", "holds")],
)  # fmt: skip
def test_an_artifact_takes_not_the_place_of_a_shell_s_folder(
    given: str, holds: str, shell_s: Path
) -> None:
    with pytest.raises(ArtifactExists, match=f" {holds} the current folder, which another folder"):
        require_replaceable(Path(given or shell_s))


def test_a_command_says_so_before_it_compiles(run: Run, shell_s: Path) -> None:
    status, _, err = run("compile", default_checkpoint(), "-o", "../..")
    assert status == 1
    assert "holds the current folder, which another folder cannot take the place of; give" in (
        one_sentence(err)
    )
    assert Path.cwd() == shell_s


def test_a_name_of_dots_is_that_of_what_will_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`new/..` leads nowhere while there is no `new`, and then to the folder around it."""
    (tmp_path / "kept").touch()
    for here in (tmp_path, Path("/")):
        monkeypatch.chdir(here)
        with pytest.raises(ArtifactExists, match="exists and is no artifact"):
            require_place(tmp_path / "new" / "..")
        with (
            pytest.raises(ArtifactExists, match="exists and is no artifact"),
            atomic_folder(tmp_path / "new" / ".."),
        ):
            pass
    assert listing(tmp_path) == ["kept"]


def test_a_name_too_long_for_what_a_compile_makes_is_found_out_before_it(tmp_path: Path) -> None:
    """The folder that is filled has the artifact's name, and more."""
    with pytest.raises(ArtifactUnwritable, match=r"File name too long.*give an -o with a shorter"):
        require_place(tmp_path / ("b" * 240))
    assert listing(tmp_path) == []


def test_a_folder_with_dots_for_a_name_is_replaced_by_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "art" / "below").mkdir(parents=True)
    (tmp_path / "art" / "manifest.json").touch()
    monkeypatch.chdir("/")
    with atomic_folder(tmp_path / "art" / "below" / "..") as work:
        (work / "new").touch()
    assert listing(tmp_path) == ["art", "art/new"]


def test_a_mount_within_one_file_system_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, mounts = tmp_path / "a b", tmp_path / "mountinfo"
    out.mkdir()
    name = str(out).replace(" ", r"\040")
    mounts.write_text(
        f"22 1 8:1 / / rw - ext4 /dev/a rw\n23 22 8:1 /x {name} rw - ext4 /dev/a rw\n"
    )
    require_replaceable(out)
    monkeypatch.setattr("lostwax.backends.runtime.mounts.LIST", mounts)
    with pytest.raises(ArtifactExists, match=r"is a mount, which another folder cannot take"):
        require_replaceable(out)
    (tmp_path / "manifest.json").touch()
    with pytest.raises(ArtifactExists, match=f"holds the mount {out}, which another folder cannot"):
        require_replaceable(tmp_path)


def test_what_may_not_be_removed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kernels").mkdir()
    (tmp_path / "manifest.json").touch()
    require_replaceable(tmp_path)

    def access(path: str | Path, mode: int) -> bool:
        del mode
        return Path(path).name != "kernels"

    monkeypatch.setattr("lostwax.backends.artifact_writer.os.access", access)
    with pytest.raises(ArtifactExists, match="holds what may not be removed, which another folder"):
        require_replaceable(tmp_path)


def test_a_disk_that_takes_nothing_is_found_out_before_the_compile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(prefix: str, dir: Path) -> str:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(dir / prefix))

    monkeypatch.setattr("lostwax.backends.artifact_writer.tempfile.mkdtemp", refuse)
    with pytest.raises(ArtifactUnwritable, match="on a file system that can be written"):
        require_place(tmp_path / "out")


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
