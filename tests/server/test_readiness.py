"""While the engine starts or falls silent, clients hear how far it is and when to come back."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from fake_runtime import generate
from http_server import running

from lostwax.server.gateway.app import Settings, create_app
from lostwax.server.gateway.start_clock import FIRST, MAX_RETRY_S, StartClock, estimate
from lostwax.server.gateway.supervised import SupervisedEngine
from lostwax.server.gateway.tokenizer import IdCodec

ENGINE = Path(__file__).parents[1] / "fake_engine.py"
BODY = {"prompt": [3, 1], "temperature": 0, "ignore_eos": True, "return_token_ids": True}
GATED = """
import os, sys, time
from fake_runtime import FakeRuntime
from lostwax.server.engine.process import run_engine
def load(begin):
    begin("load weights")
    while not os.path.exists(sys.argv[2]):
        time.sleep(0.01)
    return FakeRuntime()
run_engine(load, sys.argv[1])
"""
"""An engine that loads until a file is there."""


class Clock:
    """A clock that the test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_start_is_expected_to_go_like_the_last_one() -> None:
    clock = Clock()
    start = StartClock({FIRST: 1.0, "load weights": 3.0, "warm up": 6.0}, clock)
    found: list[tuple[str, int, int]] = []

    def at(seconds: float, phase: str = "") -> None:
        clock.now = seconds
        if phase:
            start.begin(phase)
        found.append((start.progress.phase, start.progress.percent, start.progress.retry_s))

    at(0.5)
    at(1.0, "load weights")
    at(2.0)
    at(30.0)  # longer than expected
    at(31.0, "warm up")
    clock.now = 40.0
    start.ready()
    assert found == [
        (FIRST, 5, 10),
        ("load weights", 10, 9),
        ("load weights", 20, 8),
        ("load weights", 83, 6),
        ("warm up", 83, 6),
    ]
    start.restart()
    assert start.progress.retry_s == 40
    clock.now = 40.0 + 20.0
    start.begin("load weights")  # this time the process took 20 s instead of one
    assert start.progress.retry_s == 30 + 9
    clock.now += 1000
    assert (start.progress.percent, start.progress.retry_s) == (99, 9)
    start.begin("warm up")
    clock.now += 1000
    assert (start.progress.percent, start.progress.retry_s) == (99, 1)


def test_a_first_start_is_estimated_by_the_weights_and_bounded() -> None:
    small, large = (sum(estimate(size).values()) for size in (0, 10**11))
    assert large - small == pytest.approx(100)
    assert StartClock(estimate(10**13)).progress.retry_s == MAX_RETRY_S


@contextmanager
def _served(
    engine: SupervisedEngine,
) -> Generator[httpx.Client]:
    with (
        running(create_app(engine, IdCodec(), Settings())) as url,
        httpx.Client(base_url=url, timeout=30) as client,
    ):
        yield client


def _until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until, "it did not happen within 20 s"
        time.sleep(0.01)


def test_a_starting_server_says_phase_percentage_and_when_to_come_back(tmp_path: Path) -> None:
    gate, ready = tmp_path / "gate", threading.Semaphore(0)
    expected: Mapping[str, float] = {"load weights": 50.0, "warm up": 25.0}
    environment = f"import sys; sys.path.insert(0, {str(ENGINE.parent)!r})\n"
    engine = SupervisedEngine(
        lambda link: [sys.executable, "-c", environment + GATED, link.address, str(gate)],
        announce=lambda line: ready.release() if "is ready" in line else None,
        expected_s=expected,
    )
    with _served(engine) as client:
        _until(lambda: client.get("/health").json().get("phase") == "load weights")
        health = client.get("/health")
        assert (health.status_code, health.json()["status"]) == (200, "starting")
        for answer in (client.get("/ready"), client.post("/v1/completions", json=BODY)):
            assert answer.status_code == 503
            error = answer.json()["error"]
            assert (error["code"], error["phase"]) == ("engine_unavailable", "load weights")
            assert 0 <= error["percent"] < 50
            assert "load weights" in error["message"]
            assert 50 < int(answer.headers["retry-after"]) <= 75
        gate.touch()
        assert ready.acquire(timeout=30)
        assert client.get("/ready").json() == {"status": "ready"}
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGKILL)
        _until(lambda: client.get("/ready").status_code == 503)
        retry_s = int(client.get("/ready").headers["retry-after"])
        assert retry_s < 50, "as the last start was, not as the first was expected to be"
        assert ready.acquire(timeout=30)


def test_a_late_heartbeat_is_not_ready_and_fails_nobody() -> None:
    ready = threading.Semaphore(0)
    engine = SupervisedEngine(
        lambda link: [sys.executable, str(ENGINE), link.address, str(link.parent), "0.05"],
        announce=lambda line: ready.release() if "is ready" in line else None,
        late_s=0.6,
        silence_s=60,
    )
    began = time.monotonic()
    with _served(engine) as client:
        assert ready.acquire(timeout=30)
        started_s = time.monotonic() - began
        body = BODY | {"max_tokens": 6, "stream": True}
        with client.stream("POST", "/v1/completions", json=body) as answer:
            assert engine.pid is not None
            os.kill(engine.pid, signal.SIGSTOP)
            _until(lambda: client.get("/ready").status_code == 503)
            assert (
                client.get("/ready").json()["error"]["message"] == "the engine's heartbeat is late"
            )
            late = client.get("/ready")
            assert late.json()["error"]["phase"] == "silent"
            # The silence's rest, and a start like the last one, for which it did not wait longer.
            assert 50 < int(late.headers["retry-after"]) <= 60 + 1 + started_s
            assert client.get("/health").json().items() >= {
                ("status", "late"),
                ("phase", "silent"),
            }
            os.kill(engine.pid, signal.SIGCONT)
            _until(lambda: client.get("/ready").status_code == 200)
            assert answer.read().endswith(b"data: [DONE]\n\n")
        whole = client.post("/v1/completions", json=BODY | {"max_tokens": 3}).json()
        assert whole["choices"][0]["token_ids"] == generate([3, 1], 3)
