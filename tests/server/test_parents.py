"""No process outlives who started it, however early that one ends, and no folder for long."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from gateway_process import ENGINE, gateway_process

from lostwax.server.gateway.own_folder import PREFIX, own_folder

MODULES = {
    "the engine": ["lostwax.server.engine", "nowhere", "--address", "ipc:///tmp/none", "--parent"],
    "the ranks' launcher": ["lostwax.server.engine.launch", "2", "--meeting", "none", "--parent"],
    "run's server": ["lostwax.cli.served_child"],
}


@pytest.mark.parametrize("name", MODULES)
def test_a_process_whose_parent_ended_before_it_looked_ends_at_once(name: str) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    command = [sys.executable, "-m", *MODULES[name], str(ended.pid)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")  # before it did anything


def test_an_engine_ends_whose_gateway_was_killed_in_its_first_moment(tmp_path: Path) -> None:
    # It tells that it lives, and needs a while to come to its own first line.
    late = "import runpy, sys, time; print('born', file=sys.stderr, flush=True); time.sleep(0.3);"
    late += f"sys.argv[0] = {str(ENGINE)!r}; sys.path.insert(0, {str(ENGINE.parent)!r});"
    late += "runpy.run_path(sys.argv[0], run_name='__main__')"
    with gateway_process(tmp=tmp_path, ready=False, engine=[sys.executable, "-c", late]) as gateway:
        gateway.read_until("born")
        gateway.process.kill()
        begun = time.monotonic()
        gateway.end()  # the engine holds the other end of this pipe
        assert time.monotonic() - begun < 10
    assert len(list(tmp_path.glob(f"{PREFIX}*"))) == 1
    with gateway_process(tmp=tmp_path) as gateway:
        assert len(list(tmp_path.glob(f"{PREFIX}*"))) == 1  # its own: the killed one's is gone
        gateway.process.terminate()
        gateway.end()
    assert not list(tmp_path.glob(f"{PREFIX}*"))


def test_only_folders_that_nobody_holds_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    kept = tmp_path / "other"
    kept.mkdir()
    (tmp_path / f"{PREFIX}link").symlink_to(kept)
    (tmp_path / f"{PREFIX}file").write_text("")
    abandoned = tmp_path / f"{PREFIX}dead"
    abandoned.mkdir()
    (abandoned / "engine-0").write_text("")
    with own_folder() as first:
        assert not abandoned.exists()
        assert first.stat().st_mode & 0o777 == 0o700
        with own_folder() as second:
            assert first.is_dir()
            assert second.is_dir()
        assert not second.exists()
    assert not first.exists()
    assert kept.is_dir()
    assert (tmp_path / f"{PREFIX}link").is_symlink()
