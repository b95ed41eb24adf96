"""Whoever is killed while replacing an artifact leaves one whole version, which opens."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import replacing_killed
from small_fixtures import Compiled

from lostwax.backends import artifact_writer
from lostwax.backends.artifact_writer import ArtifactUnwritable, seal, write
from lostwax.backends.runtime import whole_file, whole_folder
from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.backends.runtime.certificates import write_certificates
from lostwax.backends.runtime.whole_file import write_whole
from lostwax.cli.named_artifact import named_artifact
from lostwax.ir.contract.probe import Certificates

SCRIPT = Path(replacing_killed.__file__)


@pytest.fixture(scope="module")
def versions(torch_artifact: Compiled, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two artifacts of other digests, cut to what opens, so that a copy takes few steps."""
    folder = tmp_path_factory.mktemp("versions")
    for name in ("one", "two"):
        _cut_down(torch_artifact.artifact, folder / name)
    return folder


def _cut_down(artifact: Path, out: Path) -> None:
    """Its programs and weight plan, sealed under a name of their own."""
    manifest = ArtifactReader(artifact).manifest
    for name in (*(ref.file for ref in manifest.programs), "weights.json"):
        write(out, name, (artifact / name).read_bytes())
    seal(out, msgspec.structs.replace(manifest, toolchain={"name": out.name}))


@pytest.mark.parametrize("way", ["exchange", "renames"])
def test_a_kill_at_any_step_leaves_a_whole_version_that_opens(
    versions: Path, tmp_path: Path, way: str
) -> None:
    arguments = [str(versions), str(tmp_path / "art"), way]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        check=False, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 40, "every step of copying, renaming and removing"


def test_who_opens_an_artifact_next_gives_it_its_name_back(versions: Path, tmp_path: Path) -> None:
    """A writer was killed between two renames, and nobody compiles again."""
    art = tmp_path / "art"
    opens: tuple[Callable[[], object], ...] = (
        lambda: ArtifactReader(art),
        lambda: named_artifact(art, "cpu", "fp32", 0),
    )
    for opened in opens:
        replacing_killed.replace(versions / "one", art)
        os.rename(art, whole_folder.aside(art))
        opened()
        ArtifactReader(art).verify()
        assert os.listdir(tmp_path) == ["art"]


def _exchanges_nothing(one: Path, other: Path) -> bool:
    return False


@pytest.mark.parametrize("exchanges", [True, False])
def test_what_was_replaced_is_gone(
    tmp_path: Path, exchanges: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not exchanges:
        monkeypatch.setattr(whole_folder, "exchange", _exchanges_nothing)
    folder = tmp_path / "art"
    for number in range(3):
        made = tmp_path / "made"
        made.mkdir()
        (made / str(number)).write_text("")
        whole_folder.put_in_place(made, folder)
        assert os.listdir(tmp_path) == ["art"], "and not beside it, under another name"
        assert os.listdir(folder) == [str(number)]


@pytest.mark.parametrize("exchanges", [True, False])
@pytest.mark.parametrize("fails", ["sync", "remove"])
def test_an_error_behind_the_exchange_says_that_the_new_version_is_there(
    fails: str, exchanges: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a disk that is full by then nobody reads that nothing was left behind."""
    if not exchanges:
        monkeypatch.setattr(whole_folder, "exchange", _exchanges_nothing)
    out = tmp_path / "art"
    replaced_by(out, "old")

    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(whole_folder, fails, full)
    with pytest.raises(whole_folder.NotFinished, match="is written and whole; only then") as error:
        replaced_by(out, "new")
    assert "nothing was left behind" not in str(error.value)
    assert "new" in os.listdir(out)
    assert len(os.listdir(tmp_path)) == 2, "the old version has another name"


def test_a_second_rename_that_fails_gives_the_old_version_its_name_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, rename = tmp_path / "art", os.rename
    replaced_by(out, "old")

    def refused(one: Path, other: Path) -> None:
        if other == out and one != whole_folder.aside(out):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(other))
        rename(one, other)

    monkeypatch.setattr(whole_folder, "exchange", _exchanges_nothing)
    monkeypatch.setattr("os.rename", refused)
    with pytest.raises(ArtifactUnwritable, match="nothing was left behind"):
        replaced_by(out, "new")
    assert os.listdir(tmp_path) == ["art"]
    assert "old" in os.listdir(out)


def test_what_cannot_be_taken_back_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path) -> None:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(artifact_writer, "remove", refused)
    with (
        pytest.raises(ArtifactUnwritable, match=r"nor .*\.art\.compiling\..* removed .*; remove"),
        artifact_writer.atomic_folder(tmp_path / "art"),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def replaced_by(out: Path, name: str) -> None:
    with artifact_writer.atomic_folder(out) as work:
        (work / "manifest.json").touch()
        (work / name).touch()


def test_names_are_exchanged_in_one_step_where_the_file_system_can(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text("")
    if not whole_folder.exchange(tmp_path / "a", tmp_path / "b"):
        pytest.skip("this file system exchanges no names")
    assert os.listdir(tmp_path / "a") == ["b"]
    assert os.listdir(tmp_path / "b") == ["a"]
    with pytest.raises(FileNotFoundError):
        whole_folder.exchange(tmp_path / "a", tmp_path / "none")


def test_content_is_on_the_disk_before_it_has_its_name(
    versions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file and folder is synced before the rename, and the folder around it after."""
    done: list[str] = []
    synced, renamed, exchanged = whole_file.sync, os.rename, whole_folder.exchange

    def sync(path: Path) -> None:
        done.append(os.path.relpath(path, tmp_path))
        synced(path)

    def rename(one: Path, other: Path) -> None:
        done.append("RENAME")
        renamed(one, other)

    def exchange(one: Path, other: Path) -> bool:
        done.append("RENAME")
        return exchanged(one, other)

    monkeypatch.setattr(whole_file, "sync", sync)
    monkeypatch.setattr(whole_folder, "sync", sync)
    monkeypatch.setattr("os.rename", rename)
    monkeypatch.setattr(whole_folder, "exchange", exchange)
    for number in range(2):
        done.clear()
        replacing_killed.replace(versions / "one", tmp_path / "art")
        at = done.index("RENAME")
        before = {Path(name).name for name in done[:at]}
        assert before >= {p.name for p in (versions / "one").rglob("*")}, number
        assert done[-1] == "."


def test_a_certificate_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def sync(handle: int) -> None:
        done.append("sync")
        fsync(handle)

    def rename(one: str, other: Path) -> None:
        done.append("rename")
        replace(one, other)

    monkeypatch.setattr("os.fsync", sync)
    monkeypatch.setattr("os.replace", rename)
    made = Certificates(artifact="a", device="d", code="c", evidence={})
    assert write_certificates(made, tmp_path / "c.json")
    assert done == ["sync", "rename", "sync"]


def test_a_file_that_cannot_be_replaced_stays_and_leaves_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    write_whole(tmp_path / "file", b"old")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(tmp_path / "file", b"new")
    assert os.listdir(tmp_path) == ["file"]
    assert (tmp_path / "file").read_bytes() == b"old"


LOOP = """
import sys
from pathlib import Path
from typing import Any
from replacing_killed import replace, whole_folder
if sys.argv[3] == "renames":
    whole_folder.exchange = lambda one, other: False
while True:
    for version in sorted(Path(sys.argv[1]).iterdir()):
        replace(version, Path(sys.argv[2]))
        print("replaced", flush=True)
"""


@pytest.mark.hostile
@pytest.mark.parametrize("way", ["exchange", "renames"])
def test_kills_at_any_moment_leave_a_whole_version_that_opens(
    versions: Path, tmp_path: Path, way: str
) -> None:
    """The same by the clock: between two steps of Python there are many of the kernel's."""
    out = tmp_path / "art"
    replacing_killed.replace(versions / "one", out)
    digests = {ArtifactReader(v).manifest.digest for v in versions.iterdir()}
    for turn in range(100):
        process = subprocess.Popen(
            [sys.executable, "-c", LOOP, str(versions), str(out), way],
            stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": _path()},
        )  # fmt: skip
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(turn * 0.0007)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        reader = ArtifactReader(out)
        reader.verify()
        assert reader.manifest.digest in digests


def _path() -> str:
    return os.pathsep.join([str(SCRIPT.parent), os.environ.get("PYTHONPATH", "")])
