"""Bounds on the bodies that clients send: in size, in time, and all together. Knows no route.

A body that is not whole waits for its client, as a connection may (`room.py`). So whoever sends
most of many large bodies and no end takes room from himself: of the address that holds most of
such bytes, the body gives way that has held most for longest. Small bodies are bounded by the
number of connections alone, and are never refused for what others send.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lostwax.server.gateway.address import client_address
from lostwax.server.gateway.errors import ApiError

MAX_BODY_BYTES = 16 * 2**20
"""A prompt of 160k ids is about 1.2 MB of JSON."""
BODY_DEADLINE_S = 30.0
MAX_TOTAL_BYTES = 256 * 2**20
"""Of the bodies above FREE_BODY_BYTES that are being read or answered."""
FREE_BODY_BYTES = 65536


@dataclass(slots=True, eq=False)
class _Arriving:
    """A body of which more is to come. `timeout` ends its reading."""

    address: str
    timeout: asyncio.Timeout
    begun_s: float
    content: bytearray = field(default_factory=bytearray)
    gave_way: bool = False


class BodyLimit:
    """ASGI middleware: reads a body whole, within a size (413) and a time (408).

    The large bodies of all requests under way have a bound, too (429).
    """

    def __init__(
        self,
        app: ASGIApp,
        max_bytes: int = MAX_BODY_BYTES,
        deadline_s: float = BODY_DEADLINE_S,
        max_total_bytes: int = MAX_TOTAL_BYTES,
        free_bytes: int = FREE_BODY_BYTES,
    ) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._deadline_s = deadline_s
        self._max_total_bytes = max_total_bytes
        self._free_bytes = free_bytes
        self._total_bytes = 0
        self._arriving: set[_Arriving] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection event, as ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            body = await self._read_whole(scope, receive)
        except ApiError as error:
            await error.response()(scope, receive, send)
            return
        if body is None:
            return
        num_bytes = self._counted(body)
        self._total_bytes += num_bytes
        pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        del body  # the application may drop it

        async def replay() -> Message:
            return pending.pop() if pending else await receive()

        try:
            await self._app(scope, replay, send)
        finally:
            self._total_bytes -= num_bytes

    async def _read_whole(self, scope: Scope, receive: Receive) -> bytes | None:
        """The body; None where the client left before it was whole; ApiError at a bound."""
        body: _Arriving | None = None
        try:
            async with asyncio.timeout(self._deadline_s) as timeout:
                now_s = asyncio.get_running_loop().time()
                body = _Arriving(client_address(scope.get("client")), timeout, now_s)
                self._arriving.add(body)
                is_whole = await self._read_into(body, scope, receive)
            return bytes(body.content) if is_whole else None
        except TimeoutError:
            if body is not None and body.gave_way:
                raise _too_much() from None
            message = f"the body did not arrive within {self._deadline_s:g} s"
            raise ApiError(408, message) from None
        finally:
            if body is not None:
                self._drop(body)

    async def _read_into(self, body: _Arriving, scope: Scope, receive: Receive) -> bool:
        """Whether the client stayed until its body was whole."""
        too_large = ApiError(
            413, f"the body exceeds {self._max_bytes} bytes", code="body_too_large"
        )
        for name, value in scope["headers"]:
            if name == b"content-length" and int(value) > self._max_bytes:
                raise too_large
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return False
            if body.gave_way:
                raise _too_much()
            part = message.get("body", b"")
            if len(body.content) + len(part) > self._max_bytes:
                raise too_large
            self._total_bytes -= self._counted(body.content)
            body.content += part
            self._total_bytes += self._counted(body.content)
            is_whole = not message.get("more_body", False)
            self._make_room(body)
            if is_whole:
                return True

    def _counted(self, body: bytes | bytearray) -> int:
        return len(body) if len(body) > self._free_bytes else 0

    def _drop(self, body: _Arriving) -> None:
        self._arriving.discard(body)
        self._total_bytes -= self._counted(body.content)
        body.content = bytearray()

    def _make_room(self, body: _Arriving) -> None:
        """Raises ApiError where it is `body` that must give way."""
        while self._total_bytes > self._max_total_bytes and self._counted(body.content):
            first = self._first_to_go()
            if first is body:
                raise _too_much()
            first.gave_way = True
            self._drop(first)
            if not first.timeout.expired():
                first.timeout.reschedule(0)

    def _first_to_go(self) -> _Arriving:
        large = [body for body in self._arriving if self._counted(body.content)]
        held_bytes: Counter[str] = Counter()
        for body in large:
            held_bytes[body.address] += len(body.content)
        (address, _), *_ = held_bytes.most_common(1)
        now_s = asyncio.get_running_loop().time()
        return max(
            (body for body in large if body.address == address),
            key=lambda body: len(body.content) * (now_s - body.begun_s),
        )


def _too_much() -> ApiError:
    message = "the bodies under way are too large; try again later"
    return ApiError(429, message, code="queue_full")
