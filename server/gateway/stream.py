"""Server-sent events, and what happens when a client leaves. Knows no completion and no engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from fastapi import Response
from starlette.types import Receive, Scope, Send

from lostwax.server.gateway.border import internal_error
from lostwax.server.gateway.end_tasks import end_tasks
from lostwax.server.gateway.errors import ApiError
from lostwax.server.gateway.request_watch import record_of

T = TypeVar("T")
PARTS = "lostwax.parts"
"""The ASGI extension of a server that writes parts of a streamed body by itself: a token passes ten
layers less."""
WritePart = Callable[[bytes], bool]
"""Writes a part; False where it is to be sent the usual way, which may wait."""
QUIET_S = 15.0
"""After so long without an event a stream says that it lives, or proxies cut it (nginx after 60 s):
the time that the HTML standard advises for comments of server-sent events (9.2.7)."""
COMMENT = b":\n\n"
"""One that says nothing."""


@dataclass(frozen=True, slots=True)
class Framing:
    """How an interface sends events: what stands before each, what comes behind the last one, and
    the whole event of an error that ends the stream; what stands `between` events, and what all of
    them together are. In a silence a stream sends what `waits` stands for before its first event,
    and what `lives` does behind it: each whole, and no news to a client."""

    prefix: bytes
    done: bytes
    error: Callable[[ApiError], bytes]
    between: bytes = b"\n\n"
    media_type: str = "text/event-stream"
    waits: bytes = COMMENT
    lives: bytes = COMMENT


def error_event(error: ApiError) -> bytes:
    """An error in OpenAI's shape."""
    return b"event: error\ndata: %b\n\n" % msgspec.json.encode(error.body)


UNNAMED = Framing(b"data: ", b"data: [DONE]\n\n", error_event)
"""Of events that are told apart by their JSON."""


class ClientLeft(Exception):
    """The client closed its connection before the answer was complete."""


async def unless_client_leaves(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled (ClientLeft) when the client disconnects."""
    task = asyncio.create_task(work)
    watch = asyncio.create_task(_disconnect(receive))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientLeft
        return task.result()
    finally:
        await end_tasks(task, watch)


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def begun(events: AsyncGenerator[T | None]) -> AsyncGenerator[T | None]:
    """The same events, once the first, or None, has come: what is raised before is raised here."""
    try:
        first = await anext(events, None)
    except BaseException:
        await events.aclose()
        raise
    return _again(first, events)


async def _again(first: T | None, events: AsyncGenerator[T | None]) -> AsyncGenerator[T | None]:
    async with aclosing(events):
        yield first
        async for event in events:
            yield event


class EventStream(Response):
    """Sends `events`, but for None, in their framing; an ApiError becomes an event, too.

    Whatever happens, `events` is closed and `on_close` is called, once.
    """

    def __init__(
        self,
        events: AsyncGenerator[bytes | None],
        on_close: Callable[[], None],
        framing: Framing = UNNAMED,
    ) -> None:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(headers=headers, media_type=framing.media_type)
        del self.headers["content-length"]
        self._events = events
        self._on_close = on_close
        self._framing = framing
        self._has_begun = False
        self._last_s = 0.0
        """When an event, or a sign of life, was sent last."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events until they end or the client leaves."""
        try:
            with suppress(ClientLeft):
                await unless_client_leaves(receive, self._send_all(send, scope))
        finally:
            try:
                await self._events.aclose()
            finally:
                self._on_close()

    async def _send_all(self, send: Send, scope: Scope) -> None:
        await send(
            {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self.raw_headers,
            }
        )
        write: WritePart | None = scope.get("extensions", {}).get(PARTS)
        try:
            signs = asyncio.create_task(self._show_life(send, write))
            try:
                await self._send_events(send, write)
            finally:
                await end_tasks(signs)
            if self._framing.done:
                await _send(send, self._framing.done)
        except ApiError as error:
            await self._end_with(send, scope, error)
        except Exception:
            await self._end_with(send, scope, internal_error(scope["state"]["request_id"]))
            raise  # to who logs it
        else:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_events(self, send: Send, write: WritePart | None) -> None:
        now = asyncio.get_running_loop().time
        prefix, between = self._framing.prefix, self._framing.between
        async for text in self._events:
            if text is None:
                continue
            event = b"%b%b%b" % (prefix, text, between)
            self._has_begun, self._last_s = True, now()
            if write is None or not write(event):
                await _send(send, event)

    async def _show_life(self, send: Send, write: WritePart | None) -> None:
        """Send a sign of life wherever no event came for QUIET_S: a call that is told of when it is
        whole may be written for minutes, and so may be waited for the first token."""
        loop = asyncio.get_running_loop()
        self._last_s = loop.time()
        while True:
            left_s = self._last_s + QUIET_S - loop.time()
            if left_s > 0:
                await asyncio.sleep(left_s)
                continue
            self._last_s = loop.time()
            sign = self._framing.lives if self._has_begun else self._framing.waits
            if write is None or not write(sign):
                await _send(send, sign)

    async def _end_with(self, send: Send, scope: Scope, error: ApiError) -> None:
        record = record_of(scope)
        if record is not None:
            record.status = error.status  # the client has another one, and this event
        await _send(send, self._framing.error(error))
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _send(send: Send, event: bytes) -> None:
    await send({"type": "http.response.body", "body": event, "more_body": True})
