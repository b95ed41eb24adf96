"""A server that lists its models without an end is left: by bytes, and by time."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncGenerator, Callable

import pytest
from fastapi import FastAPI
from fastapi.responses import Response, StreamingResponse
from http_server import running

from lostwax.cli.chat_client import ChatClient, ChatError
from lostwax.evals import connect
from lostwax.evals.bounded_body import MAX_LIST_BYTES
from lostwax.evals.connect import CannotConnect, by_url

LISTED = b'{"data": ['
ONE = b'{"id": "' + b"x" * 65536 + b'"},'


async def endless() -> AsyncGenerator[bytes]:
    yield LISTED
    while True:
        yield ONE
        await asyncio.sleep(0)


async def dripping() -> AsyncGenerator[bytes]:
    yield LISTED
    while True:
        yield b" "
        await asyncio.sleep(0.02)


def app(answer: Callable[[], Response]) -> FastAPI:
    made = FastAPI()

    @made.get("/v1/models")
    def models() -> Response:  # pyright: ignore[reportUnusedFunction]
        return answer()

    return made


async def connected(url: str) -> str:
    async with by_url(url) as served:
        return served.model


def test_an_endless_list_is_left_after_a_megabyte() -> None:
    with running(app(lambda: StreamingResponse(endless(), media_type="application/json"))) as url:
        with pytest.raises(CannotConnect, match=f"more than {MAX_LIST_BYTES} bytes"):
            asyncio.run(connected(url))
        with pytest.raises(ChatError, match=f"more than {MAX_LIST_BYTES} bytes"):
            _ = ChatClient(url).model


def test_a_list_that_comes_by_drops_is_left_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "CONNECT_S", 0.3)
    with (
        running(app(lambda: StreamingResponse(dripping(), media_type="application/json"))) as url,
        pytest.raises(CannotConnect, match=r"lists no models within 0\.3 s"),
    ):
        asyncio.run(connected(url))


def test_a_compressed_list_is_never_unpacked() -> None:
    bomb = gzip.compress(LISTED + b" " * (64 << 20))
    headers = {"Content-Encoding": "gzip"}
    with (
        running(app(lambda: Response(bomb, headers=headers))) as url,
        pytest.raises(CannotConnect, match="lists no models"),
    ):
        asyncio.run(connected(url))
