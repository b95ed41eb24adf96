"""Bounds on what clients may send and on what may wait. Knows bytes, requests and tokens only."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lostwax.server.gateway.errors import ApiError

MAX_BODY_BYTES = 16 * 2**20
"""A prompt of 160k ids is about 1.2 MB of JSON."""
BODY_DEADLINE_S = 30.0
MAX_TOTAL_BYTES = 256 * 2**20
"""Of the bodies that are being read or answered."""


class BodyLimit:
    """ASGI middleware: reads a body whole, within a size (413) and a time (408).

    The bodies of all requests under way have a bound, too (429).
    """

    def __init__(
        self,
        app: ASGIApp,
        max_bytes: int = MAX_BODY_BYTES,
        deadline_s: float = BODY_DEADLINE_S,
        max_total_bytes: int = MAX_TOTAL_BYTES,
    ) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._deadline_s = deadline_s
        self._max_total_bytes = max_total_bytes
        self._total_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection event, as ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body, whole = bytearray(), b""
        try:
            try:
                is_whole = await self._read_into(body, scope, receive)
            except ApiError as error:
                await error.response()(scope, receive, send)
                return
            if is_whole:
                whole, body = bytes(body), bytearray()  # not both: it may be large
                await self._pass_on(whole, scope, receive, send)
        finally:
            self._total_bytes -= len(body) + len(whole)

    async def _pass_on(self, body: bytes, scope: Scope, receive: Receive, send: Send) -> None:
        pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return pending.pop() if pending else await receive()

        await self._app(scope, replay, send)

    async def _read_into(self, body: bytearray, scope: Scope, receive: Receive) -> bool:
        """Whether the client stayed until its body was whole; raises ApiError."""
        try:
            async with asyncio.timeout(self._deadline_s):
                return await self._read(body, scope, receive)
        except TimeoutError:
            message = f"the body did not arrive within {self._deadline_s:g} s"
            raise ApiError(408, message) from None

    async def _read(self, body: bytearray, scope: Scope, receive: Receive) -> bool:
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
            part = message.get("body", b"")
            body += part
            self._total_bytes += len(part)
            if len(body) > self._max_bytes:
                raise too_large
            if self._total_bytes > self._max_total_bytes:
                raise ApiError(
                    429, "the bodies under way are too large; try again later", code="queue_full"
                )
            if not message.get("more_body", False):
                return True


@dataclass(slots=True)
class Ticket:
    """A place among the admitted requests; give it back once."""

    admission: Admission
    num_reqs: int
    num_tokens: int

    def release(self) -> None:
        """Free the place; further calls do nothing."""
        self.admission.num_reqs -= self.num_reqs
        self.admission.num_tokens -= self.num_tokens
        self.num_reqs = self.num_tokens = 0

    def change(self, num_reqs: int, num_tokens: int) -> None:
        """Exchange the place for another, when it is known what is needed; else as `admit`."""
        self.release()
        ticket = self.admission.admit(num_reqs, num_tokens)
        self.num_reqs, self.num_tokens = ticket.num_reqs, ticket.num_tokens


@dataclass(slots=True)
class Admission:
    """Bounds requests in flight, running or waiting, by number and by tokens."""

    max_reqs: int
    max_tokens: int
    num_reqs: int = 0
    num_tokens: int = 0

    def admit(self, num_reqs: int, num_tokens: int) -> Ticket:
        """A ticket, or 429; 400 for a request that could never be admitted."""
        if num_reqs > self.max_reqs:
            message = f"{num_reqs} prompts exceed the queue of {self.max_reqs}; send fewer"
            raise ApiError(400, message, code="invalid_value", param="prompt")
        # One large request may pass an idle server; the token bound is for what piles up.
        is_full = self.num_reqs + num_reqs > self.max_reqs
        if is_full or (self.num_reqs and self.num_tokens + num_tokens > self.max_tokens):
            raise ApiError(429, "the queue is full; try again later", code="queue_full")
        self.num_reqs += num_reqs
        self.num_tokens += num_tokens
        return Ticket(self, num_reqs, num_tokens)
