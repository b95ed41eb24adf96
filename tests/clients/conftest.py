"""Servers that other projects' clients ask, and a watch that these ask nobody else."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_runtime import FakeLimits
from http_server import running
from scripted_runtime import CODEC, VOCAB, ScriptedRuntime
from scripted_server import ScriptedServer
from served_artifact import served

from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.options import EngineOptions
from lostwax.server.gateway.app import Settings, create_app
from lostwax.server.gateway.in_process import InProcessEngine

ROOMY = FakeLimits(max_context=8192, page_tokens=16, num_pages=2049, vocab_size=VOCAB)
"""What the model is told of tools has some thousand bytes, a token each."""


@pytest.fixture(scope="session")
def tiny_url(trained_artifact: Path) -> Iterator[str]:
    """`lostwax serve` of the trained tiny model, by the name `tiny`."""
    with served(trained_artifact, "--served-model-name", "tiny") as url:
        yield url


@pytest.fixture(scope="module")
def scripted() -> Iterator[ScriptedServer]:
    """A server, by the name `m`, that says what a test writes, tool calls by the model's format."""
    runtime = ScriptedRuntime(limits=ROOMY)
    core = EngineCore(runtime, EngineOptions(prefix_cache=False))
    with running(create_app(InProcessEngine(core), CODEC, Settings(model="m"))) as url:
        yield ScriptedServer(runtime, url)


@pytest.fixture(autouse=True)
def _nobody_else_is_asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:  # pyright: ignore[reportUnusedFunction]
    """Clients that report on their use would ask others: from this process they cannot, and none
    tries, not even in a thread whose errors nobody sees."""
    asked = list[Any]()
    look_up, connect = socket.getaddrinfo, socket.socket.connect

    def looked_up(host: Any, *given: Any, **more: Any) -> Any:
        if host not in (None, "127.0.0.1", "localhost"):
            asked.append(host)
            raise OSError(f"{host} is not this machine")
        return look_up(host, *given, **more)

    def connected(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1"):
            asked.append(address)
            raise OSError(f"{address} is not this machine")
        connect(self, address)

    monkeypatch.setattr(socket, "getaddrinfo", looked_up)
    monkeypatch.setattr(socket.socket, "connect", connected)
    yield
    assert asked == [], "a client asked somebody else"
