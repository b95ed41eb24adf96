"""Parts of a stream are written past ASGI: in order, as chunks where HTTP has any, and never past
a client that does not read."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
import time
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from http_server import running
from starlette.types import Message

from lostwax.server.engine.messages import EngineInfo, Output, Stats, Submit, TokenScore
from lostwax.server.gateway.app import Settings, create_app
from lostwax.server.gateway.engine_client import STOPPED, EngineLost, EngineState
from lostwax.server.gateway.stream import PARTS, EventStream
from lostwax.server.gateway.tokenizer import IdCodec

NUM_TOKENS = 60_000
"""Their events are several times what the system's buffers take."""
VOCAB = 1000


class _Instant:
    """An engine whose tokens are all there; `num_taken` counts those that were asked for."""

    state: EngineState = "ready"
    progress: None = None
    stats: Stats | None = None
    num_restarts = 0
    num_taken = 0
    info = EngineInfo(
        model="instant",
        vocab_size=VOCAB,
        max_context=2 * NUM_TOKENS,
        max_reqs=1,
        max_top_logprobs=20,
        eos_token_ids=(),
    )

    async def start(self) -> None:
        """Nothing to start."""

    async def stop(self, reason: EngineLost = STOPPED) -> None:
        """Nothing to end."""

    async def stream(self, requests: Sequence[Submit]) -> AsyncGenerator[Output]:
        """One token an output: its number."""
        (submit,) = requests
        for number in range(submit.max_tokens):
            self.num_taken += 1
            finish = "length" if number == submit.max_tokens - 1 else None
            token = [TokenScore(number % VOCAB, -1.0)]
            yield Output(request=submit.request, tokens=token, finish=finish)

    def cancel(self, request: str) -> None:
        """It ends by itself."""


@contextmanager
def _asked(
    http: str, num_tokens: int, engine: _Instant | None = None
) -> Generator[tuple[_Instant, socket.socket]]:
    """A connection with a small window that has asked for a stream in that version of HTTP."""
    engine = engine or _Instant()
    with running(create_app(engine, IdCodec(), Settings())) as url, socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(20)
        place = httpx.URL(url)
        connection.connect((place.host, place.port))
        wanted: dict[str, Any] = {"prompt": [1], "max_tokens": num_tokens, "stream": True}
        body = json.dumps(wanted | {"return_token_ids": True}).encode()
        head = f"POST /v1/completions HTTP/{http}\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        yield engine, connection


def _read_all(connection: socket.socket) -> tuple[bytes, bytes]:
    """Head and body, once the server has closed."""
    found = bytearray()
    while part := connection.recv(1 << 20):
        found += part
    head, _, body = bytes(found).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    return head, body


def _unchunked(body: bytes) -> bytes:
    found, at = bytearray(), 0
    while True:
        end = body.index(b"\r\n", at)
        size = int(body[at:end], 16)
        if size == 0:
            assert body[end:] == b"\r\n\r\n"
            return bytes(found)
        found += body[end + 2 : end + 2 + size]
        at = end + 2 + size
        assert body[at : at + 2] == b"\r\n"
        at += 2


def _ids(body: bytes) -> list[int]:
    *events, done, nothing = body.split(b"\n\n")
    assert (done, nothing) == (b"data: [DONE]", b"")
    parts = [json.loads(event.removeprefix(b"data: ")) for event in events]
    return [token for part in parts for token in part["choices"][0]["token_ids"]]


def test_http_1_0_has_no_chunks_and_the_same_events() -> None:
    with _asked("1.0", 20) as (_, connection):
        head, body = _read_all(connection)
    assert b"chunked" not in head
    assert _ids(body) == list(range(20))
    with _asked("1.1", 20) as (_, connection):
        head, body = _read_all(connection)
    assert b"chunked" in head
    assert _ids(_unchunked(body)) == list(range(20))


def test_nothing_is_made_for_a_client_that_reads_nothing_and_nothing_is_lost_once_it_does() -> None:
    with _asked("1.1", NUM_TOKENS) as (engine, connection):
        num_taken = -1
        while num_taken != engine.num_taken:  # until it stands still
            num_taken = engine.num_taken
            time.sleep(0.5)
        assert 0 < num_taken < NUM_TOKENS - 1, "its parts pile up"
        _, body = _read_all(connection)
    assert _ids(_unchunked(body)) == [number % VOCAB for number in range(NUM_TOKENS)]


class _Pausing(_Instant):
    """It holds the loop behind its third token until it may go on."""

    def __init__(self) -> None:
        self.pauses, self.goes_on = threading.Event(), threading.Event()

    async def stream(self, requests: Sequence[Submit]) -> AsyncGenerator[Output]:
        """As its parent."""
        async for output in super().stream(requests):
            yield output
            if self.num_taken == 3:
                await asyncio.sleep(0)
                self.pauses.set()
                self.goes_on.wait(10)


@pytest.mark.parametrize("http", ["1.0", "1.1"])
def test_nothing_is_said_of_parts_for_a_client_that_left(
    http: str, caplog: pytest.LogCaptureFixture
) -> None:
    """asyncio warns of each write behind the fifth that fails."""
    engine = _Pausing()
    with _asked(http, 200, engine) as (_, connection):
        assert engine.pauses.wait(10)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
        engine.goes_on.set()
    assert engine.num_taken > 20
    assert not [record for record in caplog.records if record.name == "asyncio"]


@pytest.mark.parametrize("is_taken", [True, False])
def test_what_the_server_does_not_write_by_itself_is_sent_the_usual_way(*, is_taken: bool) -> None:
    written: list[bytes] = []
    sent: list[bytes] = []

    def write(part: bytes) -> bool:
        if is_taken:
            written.append(part)
        return is_taken

    async def send(message: Message) -> None:
        sent.append(message.get("body", b""))

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def events() -> AsyncGenerator[bytes]:
        yield b"{}"

    scope = {"type": "http", "state": {}, "extensions": {PARTS: write}}
    asyncio.run(EventStream(events(), lambda: None)(scope, receive, send))
    event = [b"data: {}\n\n"]
    assert written == (event if is_taken else [])
    assert sent == [b"", *([] if is_taken else event), b"data: [DONE]\n\n", b""]
