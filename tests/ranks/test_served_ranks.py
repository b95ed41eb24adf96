"""`lostwax serve` of an artifact of two ranks: one command, and no process outlives another."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx
import pytest
from small import PROMPT, SMALL, greedy, options
from tiny import write_config

from lostwax.backends.compile import compile_module
from lostwax.backends.runtime.load import load
from lostwax.frontend.capture import capture
from lostwax.frontend.checkpoint import open_checkpoint
from lostwax.frontend.new_checkpoint import new_checkpoint

LISTENS = re.compile(r"listening on (http://[\d.]+:\d+)")
COUNT = 12
END_S = 20
"""Within this all processes must have ended; it takes about half a second."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `checkpoint`, and artifacts `one` and `two`."""
    folder = tmp_path_factory.mktemp("served")
    new_checkpoint(
        write_config(folder / "source", SMALL), folder / "checkpoint", seed=0, format="fp32"
    )
    captured = capture(open_checkpoint(folder / "checkpoint"))
    for tp, name in ((1, "one"), (2, "two")):
        out = folder / name
        compile_module(
            captured.module, captured.facts, captured.weights, "cpu", out, options(tp=tp)
        )
    return folder


class Server:
    """A `lostwax serve` process that is ready."""

    def __init__(self, folder: Path) -> None:
        self.artifact = folder / "two"
        command = [sys.executable, "-m", "lostwax", "serve", str(self.artifact)]
        command += ["--checkpoint", str(folder / "checkpoint"), "--port", "0", "--threads", "1"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.told = ""
        self.read_until("is ready")
        found = LISTENS.search(self.told)
        assert found, f"the server did not start: {self.told}"
        self.client = httpx.Client(base_url=found[1], timeout=120)

    def read_until(self, words: str) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:  # ends with the server, should it fail
            self.told += line
            if words in line:
                return

    def processes(self, *words: str) -> list[int]:
        """Processes of this artifact whose command line holds the words."""
        found: list[int] = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                command = (folder / "cmdline").read_bytes().decode()
            except (OSError, UnicodeDecodeError):
                continue
            if str(self.artifact) in command and all(word in command for word in words):
                found.append(int(folder.name))
        return sorted(found)

    def ranks(self) -> list[int]:
        launchers = self.processes("lostwax.server.engine.launch")
        return [p for p in self.processes("lostwax.server.engine") if p not in launchers]

    def listens_on(self) -> set[str]:
        """The addresses of every TCP socket on which a process of the artifact listens."""
        sockets = {
            os.readlink(file)
            for process in self.processes()
            for file in Path(f"/proc/{process}/fd").iterdir()
        }
        found: set[str] = set()
        for table in ("tcp", "tcp6"):
            for line in Path(f"/proc/{self.process.pid}/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                    found.add(fields[1].partition(":")[0])
        return found

    def complete(self) -> list[int]:
        model = self.client.get("/v1/models").json()["data"][0]["id"]
        body: dict[str, Any] = {"model": model, "prompt": PROMPT, "max_tokens": COUNT}
        answer = self.client.post("/v1/completions", json=body | {"temperature": 0})
        assert answer.status_code == 200, answer.text
        text: str = answer.json()["choices"][0]["text"]
        return [int(token) for token in re.findall(r"token_id:(\d+)", text)]

    def ended(self) -> bool:
        """Whether every process of the artifact ends in time."""
        until = time.monotonic() + END_S
        while self.processes() and time.monotonic() < until:
            time.sleep(0.05)
        return not self.processes()


@pytest.fixture
def server(served: Path) -> Generator[Server]:
    server = Server(served)
    try:
        yield server
    finally:
        for process in server.processes():
            os.kill(process, signal.SIGKILL)
        server.client.close()
        server.process.communicate()


def test_one_command_serves_two_ranks_and_ends_them(served: Path, server: Server) -> None:
    alone = load(served / "one", checkpoint=served / "checkpoint")
    assert len(server.ranks()) == 2
    assert server.listens_on() == {"0100007F"}, "127.0.0.1 alone, as the kernel writes it"
    assert server.complete() == [token for token, _ in greedy(alone, PROMPT, COUNT)]
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(END_S) == 0
    assert server.ended()


@pytest.mark.slow  # a second start of two ranks
def test_a_lost_rank_ends_the_engine_which_is_started_again(server: Server) -> None:
    before = server.complete()
    ranks = server.ranks()
    os.kill(ranks[1], signal.SIGKILL)
    server.read_until("starting it again")
    server.read_until("is ready")
    assert not set(ranks) & set(server.ranks())
    assert server.complete() == before


def test_no_rank_outlives_a_killed_gateway(server: Server) -> None:
    server.process.kill()
    server.process.wait()
    assert server.ended()
