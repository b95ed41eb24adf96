"""An end that was asked for: requests under way go on for a while, and every client is told."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fake_runtime import generate
from gateway_process import gateway_process

PROMPT = [3, 1, 4]
BODY = {"prompt": PROMPT, "temperature": 0, "ignore_eos": True, "return_token_ids": True}


def _stream(http: httpx.Client, max_tokens: int) -> Any:
    body = BODY | {"max_tokens": max_tokens, "stream": True}
    return http.stream("POST", "/v1/completions", json=body)


def _lines(answer: httpx.Response) -> Iterator[str]:
    return (line for line in answer.iter_lines() if line)


def _said(told: list[str]) -> str:
    """All lines but those of the start."""
    assert not [line for line in told if not line.endswith("\n")], "half a line"
    return "".join(line for line in told if "listening" not in line and "is ready" not in line)


def test_a_running_answer_is_finished_and_new_requests_are_told_when_to_come_back() -> None:
    with gateway_process(step_s=0.05) as gateway, httpx.Client(base_url=gateway.url) as http:
        with _stream(http, 12) as answer:
            lines = _lines(answer)
            tokens = [*json.loads(next(lines)[6:])["choices"][0]["token_ids"]]
            gateway.process.send_signal(signal.SIGTERM)
            gateway.read_until("draining: 1 request, up to 10 s; Ctrl-C again stops at once")
            for refused in (
                http.post("/v1/completions", json=BODY),
                http.get("/v1/models"),
                http.get("/ready"),
            ):
                assert refused.status_code == 503
                assert refused.json()["error"]["code"] == "shutting_down"
                assert 1 <= int(refused.headers["retry-after"]) <= 10
            health = http.get("/health")
            assert (health.status_code, health.json()) == (
                200,
                {"status": "draining", "running": 1},
            )
            rest = list(lines)
        tokens += [t for line in rest[:-1] for t in json.loads(line[6:])["choices"][0]["token_ids"]]
        assert tokens == generate(PROMPT, 12)
        assert rest[-1] == "data: [DONE]"
        status, told = gateway.end()
    assert status == 0
    assert _said(told).splitlines() == [
        "draining: 1 request, up to 10 s; Ctrl-C again stops at once",
        "stopped",
    ]


def test_at_the_deadline_every_client_gets_an_error_of_the_apis_shape() -> None:
    with gateway_process(0.2, 0.5) as gateway, httpx.Client(base_url=gateway.url) as http:
        whole: list[httpx.Response] = []

        def ask() -> None:
            url = f"{gateway.url}/v1/completions"
            whole.append(httpx.post(url, json=BODY | {"max_tokens": 40}, timeout=20))

        with _stream(http, 40) as answer:
            lines = _lines(answer)
            next(lines)
            asking = threading.Thread(target=ask)
            asking.start()
            while http.get("/health").json()["running"] < 2:
                time.sleep(0.01)
            gateway.process.send_signal(signal.SIGINT)
            rest = list(lines)
        asking.join()
        status, told = gateway.end()
    assert rest[-2] == "event: error"
    streamed = json.loads(rest[-1].removeprefix("data: "))["error"]
    assert whole[0].status_code == 503
    for error in (streamed, whole[0].json()["error"]):
        assert (error["code"], error["type"]) == ("shutting_down", "server_error")
    assert status == 0
    assert _said(told).splitlines() == [
        "draining: 2 requests, up to 0.5 s; Ctrl-C again stops at once",
        "2 requests not finished after 0.5 s: ended with an error",
        "stopped",
    ]


def test_a_second_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    with (
        gateway_process(0.2, 60, tmp=tmp_path) as gateway,
        httpx.Client(base_url=gateway.url) as http,
        _stream(http, 40) as answer,
    ):
        lines = _lines(answer)  # kept: an iterator that nobody holds closes its connection
        next(lines)
        gateway.process.send_signal(signal.SIGINT)
        gateway.read_until("draining: 1 request, up to 60 s")
        gateway.process.send_signal(signal.SIGINT)
        status, told = gateway.end()
    assert status == 130
    assert _said(told) == "draining: 1 request, up to 60 s; Ctrl-C again stops at once\n"
    assert not list(tmp_path.iterdir())


INTERRUPTED_WRITE = """
import asyncio, os, signal, sys
from lostwax.server.gateway.stop_signals import stop_signals

class Writing:
    def write(self, text): pass
    def flush(self): raise RuntimeError("reentrant call inside <_io.BufferedWriter>")

async def main():
    with stop_signals(lambda: None) as asked:
        os.kill(os.getpid(), signal.SIGINT)
        await asked.wait()
        sys.stderr = Writing()
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(60)

asyncio.run(main())
"""


def test_a_second_ctrl_c_in_the_middle_of_a_line_ends_at_once_too() -> None:
    command = [sys.executable, "-c", INTERRUPTED_WRITE]
    assert subprocess.run(command, timeout=30, check=False).returncode == 130


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_idle_server_ends_at_the_first_signal(number: int, tmp_path: Path) -> None:
    with gateway_process(tmp=tmp_path) as gateway, httpx.Client(base_url=gateway.url) as http:
        assert http.get("/ready").status_code == 200
        gateway.process.send_signal(number)
        status, told = gateway.end()  # the client's idle connection does not hold it up
    assert (status, _said(told)) == (0, "stopped\n")
    assert not list(tmp_path.iterdir())


def test_a_server_ends_while_its_engine_starts() -> None:
    forever = (sys.executable, "-c", "import time; time.sleep(60)")
    with gateway_process(ready=False, engine=forever) as gateway:
        gateway.process.send_signal(signal.SIGINT)
        assert gateway.end()[0] == 0
