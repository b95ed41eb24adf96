"""The folder that was named is filled itself, by one process; failures leave it as it was."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from command_line import Run, listing, lostwax, one_sentence

from lostwax.containers import write
from lostwax.containers.filled_folder import FolderInUse
from lostwax.containers.write import Brought, write_folder


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return partial(lostwax, capsys)


@pytest.mark.parametrize("given", [".", "", "../link"])
def test_a_shell_in_the_folder_stays_there(
    given: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So does a mount, and a folder whose own may not be written: no name is changed."""
    there = tmp_path / "around" / "there"
    there.mkdir(parents=True)
    (there.parent / "link").symlink_to(there)
    before = listing(there.parent)
    there.parent.chmod(0o555)
    monkeypatch.chdir(there)
    status, _, err = run("container", "cpu", "-o", given or there)
    assert status == 0, err
    assert Path.cwd() == there
    assert Path("Dockerfile").is_file()
    there.parent.chmod(0o755)
    assert [each for each in listing(there.parent) if not each.startswith("there/")] == before


@pytest.mark.parametrize("was_there", [True, False])
def test_a_failure_leaves_what_was_there(was_there: bool, run: Run, tmp_path: Path) -> None:
    out, wheels = tmp_path / "out", tmp_path / "wheels"
    wheels.mkdir()
    (wheels / "a.tar.gz").touch()
    if was_there:
        out.mkdir()
    before = listing(tmp_path)
    status, _, err = run("container", "cpu", "-o", out, "--wheels", wheels)
    assert status == 1
    assert "is no file of a package" in one_sentence(err)
    assert listing(tmp_path) == before


KILLED = """
import os, sys
from lostwax.cli import main
from lostwax.containers import filled_folder

move = filled_folder.name_as_new

def killed_before(name, of, into):
    if name == sys.argv[1]:
        os._exit(9)
    move(name, of, into)

filled_folder.name_as_new = killed_before
main(["container", "cpu", "-o", sys.argv[2]])
"""


@pytest.mark.parametrize("name", ["Dockerfile", "README.md"])
def test_what_a_kill_leaves_builds_nothing_and_is_refused(
    name: str, run: Run, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = subprocess.run([sys.executable, "-c", KILLED, name, out], check=False, timeout=60)
    assert done.returncode == 9
    left = listing(out)
    assert ("requirements.txt" in left) == (name == "Dockerfile")
    assert "Dockerfile" not in left
    status, _, err = run("container", "cpu", "-o", out)
    assert status == 1
    assert "exists and is not empty; give another -o or remove it" in one_sentence(err)
    assert listing(out) == left


def test_what_came_between_is_not_mixed_with(tmp_path: Path) -> None:
    (tmp_path / "another's").touch()
    with pytest.raises(FolderInUse, match="is not empty; give another -o or remove it"):
        write_folder(tmp_path, {"Dockerfile": b""}, Brought())
    assert listing(tmp_path) == ["another's"]


REFUSED = {
    "full": (errno.ENOSPC, "wheels/a.whl", "; free some space, nothing was left behind"),
    "read only": (errno.EROFS, "out/wheels", "; give an -o on a file system that can be written"),
    "above it": (errno.EACCES, ".", "; give an -o that you may write, nothing was left"),
    "a source": (errno.EACCES, "wheels/a.whl", "[Errno 13] Permission denied: "),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_disk_refuses_is_said_with_what_to_do(
    name: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, where, said = REFUSED[name]

    def refusing(*_: object) -> None:
        raise OSError(code, os.strerror(code), str(tmp_path / where))

    monkeypatch.setattr(write, "_fill", refusing)
    status, _, err = run("container", "cpu", "-o", tmp_path / "out")
    assert status == 1
    assert said in one_sentence(err)
    assert (f"cannot write {tmp_path / 'out'}" in err) == (name != "a source")
    assert listing(tmp_path) == []
