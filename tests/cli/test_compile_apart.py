"""A compile in a process of its own: its refusals, its end, and what it leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import listing

from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.cli.compile_apart import CompileFailed, compile_apart
from lostwax.cli.default_model import NoCache

SERVE = "import sys; from lostwax.cli import main; main(sys.argv[1:])"


@pytest.mark.slow
def test_the_artifact_is_there_and_the_compiler_is_not(
    small_checkpoint: Path, tmp_path: Path
) -> None:
    code = (
        "import sys; from pathlib import Path; from lostwax.cli.compile_apart import *\n"
        "ckpt, out = map(Path, sys.argv[1:])\n"
        "compile_apart(ckpt, out, target='null', dtype='fp32', drafts=0)\n"
        "print(sorted({'torch', 'xdsl', 'onnx'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, str(small_checkpoint), str(tmp_path / "a")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert "capture" in done.stderr, "its phases are printed"
    ArtifactReader(tmp_path / "a").verify()


def test_a_refusal_is_the_compile_s_own_sentence(small_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(CompileFailed, match="Did you mean 'cpu'") as refused:
        compile_apart(small_checkpoint, tmp_path / "a", target="cqu", dtype="fp32", drafts=0)
    assert refused.value.disk is None
    assert listing(tmp_path) == []


def test_a_folder_that_is_not_utf_8_is_found(tmp_path: Path) -> None:
    """And a refusal that names it comes back."""
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    with pytest.raises(CompileFailed, match=r"caf\\udce9/config\.json"):
        compile_apart(folder, tmp_path / "a", target="cpu", dtype="fp32", drafts=0)


def test_a_cache_that_the_disk_refuses_names_the_way_out(
    small_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lostwax.cli import default_model

    def full(*_: object, **__: object) -> None:
        raise CompileFailed("the artifact cannot be written", "No space left on device")

    monkeypatch.setattr(default_model, "default_checkpoint", lambda: small_checkpoint)
    monkeypatch.setattr(default_model, "compile_apart", full)
    with pytest.raises(NoCache, match=r"\(No space left on device\); give --cache DIR"):
        default_model.default_artifact(cache=tmp_path)


def _compiling(checkpoint: Path, cwd: Path) -> subprocess.Popen[str]:
    """`lostwax serve` inside the capture of its compile."""
    command = [sys.executable, "-c", SERVE, "serve", str(checkpoint), "--target", "null"]
    process = subprocess.Popen(command, cwd=cwd, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    while "read checkpoint headers" not in process.stderr.readline():
        assert process.poll() is None
    return process


def test_ctrl_c_while_it_compiles_is_quiet_and_leaves_nothing(
    small_checkpoint: Path, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "ckpt"
    checkpoint.symlink_to(small_checkpoint)
    with _compiling(checkpoint, tmp_path) as server:
        os.kill(server.pid, signal.SIGINT)
        assert server.stderr is not None
        rest = server.stderr.read()  # to its end: the compile holds it, too
    assert server.returncode == 130
    assert "Traceback" not in rest
    assert listing(tmp_path) == ["ckpt"]


def test_a_compile_ends_with_a_server_that_is_killed(
    small_checkpoint: Path, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "ckpt"
    checkpoint.symlink_to(small_checkpoint)
    with _compiling(checkpoint, tmp_path) as server:
        killed = time.monotonic()
        server.kill()
        assert server.stderr is not None
        server.stderr.read()  # ends when the compile has, which looks four times a second
    assert time.monotonic() - killed < 30
    assert not (tmp_path / "ckpt.null-bf16.lostwax").exists()
