"""A folder that others write, too: theirs is neither written, nor removed, nor followed."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

import pytest
from command_line import listing

from lostwax.backends.runtime import whole_folder
from lostwax.backends.runtime.whole_folder import FolderHeld
from lostwax.containers import write
from lostwax.containers.filled_folder import FolderInUse
from lostwax.containers.write import Brought, write_folder

FILES = {"Dockerfile": b"FROM x\n", "kubernetes/lws.yaml": b"{}\n", "README.md": b"# x\n"}
WRITTEN = {"Dockerfile", "kubernetes", "kubernetes/lws.yaml", "README.md", *write.TAKEN}


class Cut(BaseException):
    """Ends a filling, as Ctrl-C does."""


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Lets another do something once the files are written, and before the end."""
    fill = write._fill  # pyright: ignore[reportPrivateUsage]

    def plan(other: Callable[[], object]) -> None:
        def filling(work: Path, files: Mapping[str, bytes], brought: Brought) -> None:
            fill(work, files, brought)
            other()

        monkeypatch.setattr(write, "_fill", filling)

    return plan


def secret(path: Path) -> Path:
    path.write_text("the caller's")
    path.chmod(0o600)
    return path


def is_untouched(path: Path) -> bool:
    return (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("the caller's", 0o600)


Meanwhile = Callable[[Callable[[], object]], None]


def test_a_neighbour_s_link_is_not_followed(tmp_path: Path, meanwhile: Meanwhile) -> None:
    """Neither to be written nor to be made readable."""
    kept, out = secret(tmp_path / "kept"), tmp_path / "out"
    meanwhile(lambda: (out / "zz").symlink_to(kept))
    write_folder(out, FILES, Brought())
    assert is_untouched(kept)
    assert set(listing(out)) == WRITTEN | {"zz"}


@pytest.mark.parametrize("name", ["Dockerfile", "README.md", "records"])
def test_a_name_that_a_neighbour_took_is_his(
    name: str, tmp_path: Path, meanwhile: Meanwhile
) -> None:
    kept, out = secret(tmp_path / "kept"), tmp_path / "out"

    def take() -> None:
        with suppress(OSError):  # nothing has the name yet
            (out / name).unlink()
        (out / name).symlink_to(kept)

    out.mkdir()
    meanwhile(take)
    with pytest.raises(FolderInUse, match=f"has come to hold {name}, which is another's; give"):
        write_folder(out, FILES, Brought())
    assert is_untouched(kept)
    assert listing(out) == [name]


def test_a_neighbour_who_moves_what_is_made_gets_nothing_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link to a folder of the caller's in the place of what was just made."""
    home, out = tmp_path / "home", tmp_path / "out"
    home.mkdir()
    out.mkdir()
    fill = write._fill  # pyright: ignore[reportPrivateUsage]

    def filling(work: Path, files: Mapping[str, bytes], brought: Brought) -> None:
        (made,) = out.iterdir()
        made.rename(out / "aside")
        made.symlink_to(home)
        fill(work, files, brought)

    monkeypatch.setattr(write, "_fill", filling)
    write_folder(out, FILES, Brought())
    assert listing(home) == []
    assert set(listing(out)) > WRITTEN


@pytest.mark.parametrize("was_there", [True, False])
def test_a_failure_removes_only_what_was_made(
    was_there: bool, tmp_path: Path, meanwhile: Meanwhile
) -> None:
    out = tmp_path / "deep" / "out"
    if was_there:
        out.mkdir(parents=True)

    def save() -> None:
        secret(out / "notes")
        raise Cut

    meanwhile(save)
    with pytest.raises(Cut):
        write_folder(out, FILES, Brought())
    assert is_untouched(out / "notes")
    assert listing(out) == ["notes"]


def test_what_another_saved_keeps_its_mode(tmp_path: Path, meanwhile: Meanwhile) -> None:
    meanwhile(lambda: secret(tmp_path / "notes"))
    write_folder(tmp_path, FILES, Brought())
    assert is_untouched(tmp_path / "notes")


def test_a_failure_leaves_no_folder_above_it(tmp_path: Path, meanwhile: Meanwhile) -> None:
    def fail() -> None:
        raise Cut

    meanwhile(fail)
    with pytest.raises(Cut):
        write_folder(tmp_path / "a" / "b" / "out", FILES, Brought())
    assert listing(tmp_path) == []


def test_nothing_is_written_while_another_holds_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole_folder, "WAIT_S", 0.0)
    held = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    try:
        with pytest.raises(FolderHeld):
            write_folder(tmp_path, FILES, Brought())
    finally:
        os.close(held)
    assert listing(tmp_path) == []


def test_who_waited_for_one_that_failed_makes_the_folder_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, waits, ended = tmp_path / "a" / "out", Event(), Event()

    def say(line: str) -> None:
        assert "waiting for another process" in line
        waits.set()

    def second() -> None:
        write_folder(out, FILES, Brought())
        ended.set()

    monkeypatch.setattr(whole_folder, "SAY_AFTER_S", 0.0)
    monkeypatch.setattr(whole_folder, "say", say)
    out.mkdir(parents=True)
    held = os.open(out, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    thread = Thread(target=second)
    thread.start()
    assert waits.wait(10)
    out.rmdir()
    out.parent.rmdir()
    os.close(held)
    thread.join(10)
    assert ended.is_set()
    assert set(listing(out)) == WRITTEN
