"""A neighbour who may write around a folder exchanges what was made, before it is opened.

Theirs is neither filled, nor opened to readers, nor removed.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import listing

from lostwax.containers import filled_folder, write
from lostwax.containers.filled_folder import FolderInUse, filled
from lostwax.containers.write import Brought, FolderUnwritable, write_folder

NOBODY = 65534
FILES = {"Dockerfile": b"FROM x\n", "README.md": b"# x\n"}
REFUSED = r"another replaces what is made in .*; give an -o of your own"

Exchange = Callable[[Path], None]
"""Puts something in the place of a path that was made."""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A private folder of the caller's that the neighbour would like to be filled."""
    folder = tmp_path / "home"
    folder.mkdir(mode=0o700)
    return folder


def linked(home: Path, path: Path) -> None:
    path.symlink_to(home)


def open_to_all(home: Path, path: Path) -> None:
    path.mkdir()
    path.chmod(0o777)


def full(home: Path, path: Path) -> None:
    path.mkdir(mode=0o700)
    (path / "theirs").touch()


def empty(home: Path, path: Path) -> None:
    path.mkdir(mode=0o700)


def of_another(home: Path, path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root makes what is another's")
    path.mkdir(mode=0o700)
    os.chown(path, NOBODY, NOBODY)


def gone(home: Path, path: Path) -> None:
    pass


def exchanged_by(put: Callable[[Path, Path], None], home: Path) -> Exchange:
    def exchange(path: Path) -> None:
        path.rename(home.parent / "aside")
        put(home, path)

    return exchange


def is_private(home: Path) -> bool:
    return (os.listdir(home), stat.S_IMODE(home.stat().st_mode)) == ([], 0o700)


@pytest.mark.parametrize("put", [linked, open_to_all, of_another, gone])
@pytest.mark.parametrize("name", ["out", "out/deep"])
def test_a_folder_exchanged_as_it_is_made_is_not_filled(
    name: str,
    put: Callable[[Path, Path], None],
    tmp_path: Path,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before it is opened; the one above it as well as the folder itself."""
    if (name, put) == ("out/deep", open_to_all):
        pytest.skip("a folder above it has the mode that the caller's umask gives")
    around = tmp_path / "around"
    around.mkdir()
    mkdir, exchange = os.mkdir, exchanged_by(put, home)

    def made(path: str, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        mkdir(path, mode, dir_fd=dir_fd)
        if path == "out":
            exchange(around / path)

    monkeypatch.setattr(filled_folder.os, "mkdir", made)
    with pytest.raises(FolderInUse, match=REFUSED):
        write_folder(around / name, FILES, Brought())
    assert is_private(home)
    assert listing(around) == ([] if put is gone else ["out"])


@pytest.mark.parametrize("put", [linked, full, empty])
def test_a_folder_exchanged_before_it_is_locked_is_not_filled(
    put: Callable[[Path, Path], None], tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, locked = tmp_path / "around" / "out", filled_folder.locked
    exchange = exchanged_by(put, home)
    out.parent.mkdir()

    def exchanged(folder: Path) -> object:
        exchange(folder)
        return locked(folder)

    monkeypatch.setattr(filled_folder, "locked", exchanged)
    with pytest.raises(FolderInUse, match=REFUSED):
        write_folder(out, FILES, Brought())
    assert is_private(home)
    assert listing(out.parent)[0] == "out", "theirs is theirs to remove"


@pytest.mark.parametrize("put", [linked, open_to_all, full, of_another, gone])
def test_a_private_folder_exchanged_as_it_is_made_is_not_filled(
    put: Callable[[Path, Path], None], tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, mkdtemp, exchange = tmp_path / "out", tempfile.mkdtemp, exchanged_by(put, home)
    out.mkdir()

    def made(prefix: str, dir: Path) -> str:
        name = mkdtemp(prefix=prefix, dir=dir)
        exchange(out / Path(name).name)
        return name

    monkeypatch.setattr(filled_folder.tempfile, "mkdtemp", made)
    with pytest.raises(FolderInUse, match=REFUSED):
        write_folder(out, FILES, Brought())
    assert is_private(home)
    left = 2 if put is full else int(put is not gone)
    assert len(listing(out)) == left, "theirs, and nothing in it but theirs"


def test_a_folder_that_took_the_private_one_s_name_stays(tmp_path: Path) -> None:
    with filled(tmp_path, last="", mode=0o755):
        (made,) = tmp_path.iterdir()
        made.rename(tmp_path / "aside")
        made.mkdir()
    assert set(listing(tmp_path)) == {made.name, "aside"}


def test_what_took_a_name_that_was_given_is_not_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last name is refused, so that the others are given up; one of them is another's now."""
    out, move = tmp_path / "out", filled_folder.name_as_new

    def moved(name: str, of: int, into: int) -> None:
        if name == "Dockerfile":
            (out / "README.md").rename(tmp_path / "aside")
            (out / "README.md").write_text("theirs")
            raise FileExistsError
        move(name, of, into)

    monkeypatch.setattr(filled_folder, "name_as_new", moved)
    with pytest.raises(FolderInUse, match="has come to hold Dockerfile"):
        write_folder(out, FILES, Brought())
    assert listing(out) == ["README.md"]
    assert (out / "README.md").read_text() == "theirs"


def test_an_error_behind_the_last_name_does_not_say_that_nothing_was_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, move, listed = tmp_path / "out", filled_folder.name_as_new, os.listdir

    def moved(name: str, of: int, into: int) -> None:
        move(name, of, into)
        if name == write.LAST:
            monkeypatch.setattr(filled_folder.os, "listdir", refused)

    def refused(path: int | Path) -> list[str]:
        if isinstance(path, int):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(out))
        return listed(path)

    monkeypatch.setattr(filled_folder, "name_as_new", moved)
    with pytest.raises(FolderUnwritable, match=f"free some space; {out} holds something") as error:
        write_folder(out, FILES, Brought())
    assert "nothing was left" not in str(error.value)
    assert (out / "Dockerfile").is_file()


def test_where_no_folder_can_be_made_none_is_tried_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in /proc, which says that there is no such file."""

    def refused(path: str, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)

    monkeypatch.setattr(filled_folder.os, "mkdir", refused)
    with pytest.raises(
        FolderUnwritable, match=r"takes no folders\); give an -o that you may write"
    ):
        write_folder(tmp_path / "out", FILES, Brought())
