"""The default model: its weights are there, and its artifact is made once and never stale."""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import lostwax, one_sentence
from small_fixtures import Compiled

from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.cli import default_model
from lostwax.cli.default_model import (
    MAX_KEPT,
    NAME,
    NoCache,
    NoDefaultModel,
    cache_folder,
    default_artifact,
    default_checkpoint,
)
from lostwax.frontend.checkpoint import open_checkpoint
from lostwax.server.gateway.tokenizer_file import load_codec

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def weights(small_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The smallest model in the default one's place."""
    folder = tmp_path / "weights"
    shutil.copytree(small_checkpoint, folder)
    monkeypatch.setattr(default_model, "default_checkpoint", lambda: folder)
    return folder


@pytest.fixture
def compiles(monkeypatch: pytest.MonkeyPatch, small_artifact: Compiled) -> list[Path]:
    """Artifacts that were made, in order: each is a copy of one, where a compile takes seconds."""
    made: list[Path] = []

    def copy(checkpoint: Path, artifact: Path, *_: object) -> None:
        made.append(artifact)
        shutil.copytree(small_artifact.artifact, artifact, dirs_exist_ok=True)

    monkeypatch.setattr(default_model, "_compile", copy)
    return made


def test_the_default_checkpoint_is_a_whole_one_that_reads_text() -> None:
    folder = default_checkpoint()
    opened = open_checkpoint(folder)
    assert opened.has_mtp
    assert load_codec(folder).can_encode


def test_an_installation_without_weights_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("lostwax.__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(NoDefaultModel, match="name the artifact or the checkpoint"):
        default_checkpoint()


def test_it_is_compiled_once(
    weights: Path, compiles: list[Path], tmp_path: Path, capsys: Capture
) -> None:
    made = default_artifact(cache=tmp_path / "c")
    assert f"compiling {NAME} to {made} (once)" in capsys.readouterr().err
    assert default_artifact(cache=tmp_path / "c") == made
    assert capsys.readouterr().err == ""
    assert compiles == [made]


def _cut(made: Path, name: str) -> None:
    path = made / name
    path.write_bytes(path.read_bytes()[:-9])


def _deep_note(made: Path) -> None:
    (made / "checkpoint.json").write_bytes(b"[" * 100_000)


def _no_manifest(made: Path) -> None:
    (made / "manifest.json").unlink()


def _half_removed(made: Path) -> None:
    shutil.rmtree(made / "programs")
    _no_manifest(made)


def _fifo(made: Path) -> None:
    _no_manifest(made)
    os.mkfifo(made / "manifest.json")


def _file(made: Path) -> None:
    shutil.rmtree(made)
    made.write_text("")


def _dangling(made: Path) -> None:
    shutil.rmtree(made)
    made.symlink_to(made.parent / "nowhere")


DAMAGE: dict[str, Callable[[Path], None]] = {
    "manifest": lambda made: _cut(made, "manifest.json"),
    "program": lambda made: _cut(made, f"programs/{min(os.listdir(made / 'programs'))}"),
    "probes": lambda made: _cut(made, "probes.json"),
    "choices": lambda made: _cut(made, "choices.json"),
    "note": _deep_note,
    "no manifest": _no_manifest,
    "half removed": _half_removed,
    "a FIFO": _fifo,
    "a file": _file,
    "a link to nothing": _dangling,
}


@pytest.mark.parametrize("how", DAMAGE)
def test_it_is_compiled_again_whatever_is_damaged(
    weights: Path, compiles: list[Path], tmp_path: Path, capsys: Capture, how: str
) -> None:
    made = default_artifact(cache=tmp_path / "c")
    capsys.readouterr()
    DAMAGE[how](made)
    assert default_artifact(cache=tmp_path / "c") == made
    said = capsys.readouterr().err
    assert str(made) in said
    assert "a cache mends itself" in said
    assert compiles == [made, made]
    ArtifactReader(made).verify_all()
    assert sorted(os.listdir(tmp_path / "c")) == [".lock", made.name]


def test_whatever_decides_the_artifact_names_its_folder(
    weights: Path, compiles: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(**options: object) -> Path:
        return default_artifact(cache=tmp_path / "c", **options)  # pyright: ignore[reportArgumentType]

    found = [made(), made(target="null"), made(dtype="bf16"), made(drafts=1)]
    (weights / "tokenizer.json").write_text("{}")
    found.append(made())
    shard = next(weights.glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x01")
    found.append(made())
    monkeypatch.setattr("lostwax.__version__", "9.9")
    found.append(made())
    assert len(set(found)) == len(found) == len(compiles)
    assert made() == found[-1]
    assert len(compiles) == len(found)


def test_the_least_recently_used_artifact_goes_first(
    weights: Path, compiles: list[Path], tmp_path: Path
) -> None:
    (tmp_path / f"{NAME}-no-artifact").mkdir()
    for n in range(MAX_KEPT):
        old = tmp_path / f"{NAME}-cpu-fp32-{n}"
        old.mkdir()
        (old / "manifest.json").touch()
        os.utime(old, (1000 + n, 1000 + n))
    os.utime(tmp_path / f"{NAME}-cpu-fp32-0")  # used just now
    made = default_artifact(cache=tmp_path)
    kept = {p.name for p in tmp_path.glob(f"{NAME}-*")}
    assert f"{NAME}-cpu-fp32-1" not in kept
    assert {made.name, f"{NAME}-cpu-fp32-0", f"{NAME}-no-artifact"} < kept
    assert len(kept) == MAX_KEPT + 1


def test_a_second_process_waits_for_the_first(
    weights: Path, compiles: list[Path], tmp_path: Path, capsys: Capture
) -> None:
    with (tmp_path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = threading.Thread(target=lambda: default_artifact(cache=tmp_path))
        second.start()
        said = ""
        end_s = time.monotonic() + 60
        while "another process compiles now" not in said and time.monotonic() < end_s:
            time.sleep(0.1)  # what is written while it is read would be lost
            said += capsys.readouterr().err
        assert "another process compiles now" in said
        assert compiles == []
    second.join(30)
    assert len(compiles) == 1


def test_the_cache_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder(Path("/given"), {"XDG_CACHE_HOME": "/xdg"}) == Path("/given")
    assert cache_folder(None, {"XDG_CACHE_HOME": "/xdg"}) == Path("/xdg/lostwax")
    for ignored in ({}, {"XDG_CACHE_HOME": ""}, {"XDG_CACHE_HOME": "relative"}):
        assert cache_folder(None, ignored) == tmp_path / ".cache" / "lostwax"

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(NoCache, match=r"no home folder.*--cache DIR"):
        cache_folder(None, {})


def test_a_cache_that_cannot_be_written_is_one_sentence(
    weights: Path, compiles: list[Path], tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "file").touch()
    status, _, err = lostwax(capsys, "serve", "--cache", tmp_path / "file" / "c")
    assert status == 1
    assert "cannot be made: " in one_sentence(err)
    assert compiles == []


def test_serve_takes_a_checkpoint_only_with_its_artifact(capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "config.json").touch()
    status, _, err = lostwax(capsys, "serve", "--checkpoint", tmp_path)
    assert status == 1
    assert "give the checkpoint's folder in its place" in one_sentence(err)
