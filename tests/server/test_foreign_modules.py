"""A file in the working directory stands for no module of a server that is started there."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import httpx
import pytest
from served_artifact import told_url
from trained_fixtures import TRAINED

from lostwax.ir.contract.own_program import own_program

FOREIGN = """
import pathlib, sys
with pathlib.Path(__file__).with_name("ran").open("a") as file:
    print(sys.orig_argv, file=file)
raise SystemExit(1)
"""


@pytest.fixture
def strange(trained_artifact: Path, tmp_path: Path) -> Path:
    """An artifact with files beside its own, named as modules that every process imports."""
    folder = tmp_path / "artifact"
    shutil.copytree(trained_artifact, folder)
    for name in ("msgspec", "numpy", "lostwax", "argparse"):
        (folder / f"{name}.py").write_text(FOREIGN)
    return folder


def test_serving_an_artifact_in_its_own_folder_runs_no_file_of_it(strange: Path) -> None:
    command = [*own_program("lostwax"), "serve", ".", "--checkpoint", str(TRAINED), "--port", "0"]
    asked = {"prompt": "a", "max_tokens": 4}
    held = {"response_format": {"type": "json_object"}, "max_tokens": 4}
    chat = {"messages": [{"role": "user", "content": "a" * 9000}]}  # read in another process
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=strange) as server:
        try:
            with httpx.Client(base_url=told_url(server), timeout=60) as client:
                assert client.post("/v1/completions", json=asked).status_code == 200
                assert client.post("/v1/completions", json=asked | held).status_code == 200
                assert client.post("/v1/chat/completions", json=chat).status_code == 400  # too long
                assert client.get("/explain").status_code == 200
        finally:
            server.terminate()
    assert not (strange / "ran").exists(), (strange / "ran").read_text()
