"""A gateway in this process whose engine, over the fake runtime, is another, which tests kill."""

from __future__ import annotations

import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import httpx
from http_server import running

from lostwax.server.gateway.app import Settings, create_app
from lostwax.server.gateway.supervised import SupervisedEngine
from lostwax.server.gateway.tokenizer import IdCodec

ENGINE = Path(__file__).with_name("fake_engine.py")


class Readiness:
    """Waits until the engine was announced as ready, once for each of its lives."""

    def __init__(self) -> None:
        self._announced = threading.Semaphore(0)

    def announce(self, line: str) -> None:
        """A line that the engine's supervisor says."""
        if "is ready" in line:
            self._announced.release()

    def wait(self) -> None:
        """Until the next life has begun."""
        assert self._announced.acquire(timeout=60), "the engine did not become ready"


@contextmanager
def supervised(
    step_s: float = 0.0, silence_s: float = 10.0
) -> Generator[tuple[SupervisedEngine, Readiness, httpx.Client]]:
    """A ready engine whose steps take `step_s`; without a heartbeat for `silence_s` it is lost."""
    readiness = Readiness()
    engine = SupervisedEngine(
        lambda link: [sys.executable, str(ENGINE), link.address, str(link.parent), str(step_s)],
        announce=readiness.announce,
        silence_s=silence_s,
    )
    with (
        running(create_app(engine, IdCodec(), Settings())) as url,
        httpx.Client(base_url=url, timeout=30) as client,
    ):
        readiness.wait()
        yield engine, readiness, client
