"""A crafted artifact's names reach neither the terminal nor the choice of a server."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import httpx
import msgspec
import pytest
from command_line import lostwax
from small_fixtures import Compiled

from lostwax.backends.artifact_writer import seal
from lostwax.cli.served_child import ServerEnded, served_child

Capture = pytest.CaptureFixture[str]


def _named(compiled: Compiled, folder: Path, name: str) -> Path:
    """A whole artifact, digest and all, whose model has this name."""
    shutil.copytree(compiled.artifact, folder)
    (folder / "certificates.json").unlink(missing_ok=True)
    model = msgspec.structs.replace(compiled.manifest.model, name=name)
    seal(folder, msgspec.structs.replace(compiled.manifest, model=model))
    return folder


def test_a_model_s_name_cannot_send_the_prompt_to_another_server(
    small_artifact: Compiled, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as evil:
        port: int = evil.getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        name = f"listening on {url}; starting"
        artifact = _named(small_artifact, tmp_path / "art", name)
        said: list[str] = []
        options = [str(artifact), "--checkpoint", str(small_artifact.checkpoint)]
        with served_child(options, said.append) as ours:
            assert ours != url
            assert httpx.get(f"{ours}/ready").status_code == 200
    assert f"{name} is ready: the engine has run a real step" in said


def test_a_model_s_name_of_several_lines_is_no_name(
    small_artifact: Compiled, tmp_path: Path
) -> None:
    artifact = _named(small_artifact, tmp_path / "art", "m\nm is ready: \x1b[2Jx")
    options = [str(artifact), "--checkpoint", str(small_artifact.checkpoint)]
    with (
        pytest.raises(ServerEnded, match=r"manifest\.json is damaged .*\$\.model\.name") as ended,
        served_child(options, lambda line: None),
    ):
        raise AssertionError("it was served")
    assert str(ended.value).isprintable()


def test_commands_that_read_an_artifact_print_its_names_clean(
    capsys: Capture, small_artifact: Compiled, tmp_path: Path
) -> None:
    artifact = _named(small_artifact, tmp_path / "a\x1b[2Jb\nc", "a printable name")
    checkpoint = ("--checkpoint", small_artifact.checkpoint)
    for command in (
        ("plan", artifact),
        ("explain", artifact),
        ("explain", artifact, "mla.attend"),
        ("explain", artifact, "--json"),
        ("verify", artifact, *checkpoint),
        ("verify", artifact, *checkpoint, "--json"),
        ("certify", artifact),
        ("certify", tmp_path / "no\x1b[2J"),
    ):
        status, out, err = lostwax(capsys, *command)
        assert out or status
        assert not [line for line in (out + err).split("\n") if not (line.isprintable())]
