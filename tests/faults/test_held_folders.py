"""Whoever may read a folder can hold its lock: nobody waits for them in silence or for ever."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lostwax.backends.artifact_writer import atomic_folder
from lostwax.backends.runtime import whole_folder
from lostwax.backends.runtime.artifact_reader import ArtifactError, ArtifactReader
from lostwax.backends.runtime.error_sentence import sentence_of
from lostwax.backends.runtime.whole_folder import FolderHeld, aside, locked

WAIT_S = 0.2


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    monkeypatch.setattr(whole_folder, "WAIT_S", WAIT_S)
    monkeypatch.setattr(whole_folder, "SAY_AFTER_S", WAIT_S / 4)


@contextmanager
def held(folder: Path, how: int = fcntl.LOCK_EX) -> Generator[int]:
    """As another process holds it: the lock belongs to an open file, not to a process."""
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, how)
        yield lock
    finally:
        os.close(lock)


@pytest.mark.parametrize("how", [fcntl.LOCK_EX, fcntl.LOCK_SH])
def test_a_held_folder_is_waited_for_aloud_and_not_for_ever(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], how: int
) -> None:
    start = time.monotonic()
    with held(tmp_path, how), pytest.raises(FolderHeld) as caught, locked(tmp_path):
        pytest.fail("two hold one lock")
    assert WAIT_S <= time.monotonic() - start < 30
    said = f"another process has held the lock of {tmp_path} for 0.2 s; end it (`fuser {tmp_path}`"
    assert str(caught.value).startswith(said)
    assert sentence_of(caught.value), "a command shows it as one sentence"
    assert capsys.readouterr().err == f"waiting for another process that holds {tmp_path}\n"


def test_a_lock_that_is_let_go_is_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole_folder, "WAIT_S", 60.0)
    with held(tmp_path) as lock:
        timer = threading.Timer(0.1, fcntl.flock, (lock, fcntl.LOCK_UN))
        timer.start()
        with locked(tmp_path):
            assert capsys.readouterr().err.startswith("waiting for another process that holds")
            with pytest.raises(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        timer.join()


def test_a_free_lock_is_taken_at_once_and_given_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole_folder, "WAIT_S", 0.0)
    for _ in range(2):
        with locked(tmp_path):
            pass
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_compile_into_a_held_folder_ends_and_leaves_nothing(tmp_path: Path, when: str) -> None:
    out = tmp_path / "art"

    def compiled() -> None:
        with atomic_folder(out) as work:
            (work / "file").write_text("")
            if when == "after":
                kept.append(os.open(tmp_path, os.O_RDONLY))
                fcntl.flock(kept[0], fcntl.LOCK_EX)

    kept: list[int] = []
    if when == "before":
        with held(tmp_path), pytest.raises(FolderHeld, match="write to a folder that only you"):
            compiled()
    else:
        with pytest.raises(FolderHeld, match="write to a folder that only you"):
            compiled()
        os.close(kept[0])
    assert os.listdir(tmp_path) == []
    with atomic_folder(out) as work:
        (work / "file").write_text("")
    assert os.listdir(tmp_path) == ["art"]


def test_who_opens_an_artifact_between_two_renames_does_not_hang(tmp_path: Path) -> None:
    aside(tmp_path / "art").mkdir()
    with held(tmp_path), pytest.raises(ArtifactError, match="art"):
        ArtifactReader(tmp_path / "art")
    assert aside(tmp_path / "art").is_dir()
