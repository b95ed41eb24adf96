"""An origin is this server's, or an allowed one, as a whole: what begins or ends alike is not."""

from __future__ import annotations

import asyncio

import pytest
from starlette.types import Message, Receive, Scope, Send

from lostwax.server.gateway.browser_guard import BrowserGuard

HOST = "127.0.0.1:8000"
FRIEND = "http://localhost:3000"


async def _accept(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def _status(origin: str, host: str = HOST) -> int:
    guard = BrowserGuard(_accept, "127.0.0.1", (), (FRIEND,), ())
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"host", host.encode()), (b"origin", origin.encode())]
    scope: Scope = {"type": "http", "method": "GET", "path": "/v1/models", "headers": headers}
    asyncio.run(guard(scope, receive, send))
    return sent[0]["status"]


@pytest.mark.parametrize("origin", [f"http://{HOST}", f"https://{HOST}", FRIEND])
def test_the_servers_own_and_an_allowed_origin_are_taken(origin: str) -> None:
    assert _status(origin) == 200


@pytest.mark.parametrize(
    "origin",
    [
        f"http://{HOST}.evil.example",
        f"http://{HOST}0",
        f"http://evil.{HOST}",
        f"http://evil.example/{HOST}",
        f"http://evil.example://{HOST}",
        f"http://{HOST}@evil.example",
        "http://127.0.0.1",
        "http://127.0.0.1:800",
        HOST,
        f"{FRIEND}.evil.example",
        f"{FRIEND}0",
        "http://localhost",
        "http://localhost:300",
        f"http://evil.example/{FRIEND}",
        "null",
        "",
        "http://",
    ],
)
def test_an_origin_that_only_begins_or_ends_alike_is_refused(origin: str) -> None:
    assert _status(origin) == 403
