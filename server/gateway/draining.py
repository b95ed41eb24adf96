"""The end of a server: requests under way go on for a while, new ones are refused. Knows no signal.

The listener stays open meanwhile, so that clients hear 503 and when to come back.
"""

from __future__ import annotations

import asyncio
import math
import time

from starlette.types import ASGIApp, Receive, Scope, Send

from lostwax.server.gateway.errors import ApiError

HEALTH = "/health"
METRICS = "/metrics"
"""The end of a server is what its operator wants to see."""


class Draining:
    """Counts the requests under way; once begun, no new one is taken."""

    def __init__(self) -> None:
        self._until: float | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._num_running = 0

    @property
    def has_begun(self) -> bool:
        """Whether new requests are refused."""
        return self._until is not None

    @property
    def num_running(self) -> int:
        """Requests that are being answered."""
        return self._num_running

    def begin(self, within_s: float) -> None:
        """Refuse new requests; those under way have `within_s` seconds."""
        self._until = time.monotonic() + within_s

    async def idle_within(self, seconds: float) -> bool:
        """Whether every request under way ended in time."""
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def enter(self) -> None:
        """A request begins; ApiError 503 while draining."""
        if self._until is not None:
            left_s = math.ceil(self._until - time.monotonic())
            message = "the server is shutting down and takes no new requests"
            raise ApiError(503, message, code="shutting_down", retry_after_s=max(left_s, 1))
        self._num_running += 1
        self._idle.clear()

    def leave(self) -> None:
        """A request that began has ended, its answer included."""
        self._num_running -= 1
        if not self._num_running:
            self._idle.set()


class DrainingGate:
    """ASGI middleware: every request but for health and metrics passes a Draining."""

    def __init__(self, app: ASGIApp, draining: Draining) -> None:
        self._app = app
        self._draining = draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection event, as ASGI has it."""
        if scope["type"] != "http" or scope["path"] in (HEALTH, METRICS):
            await self._app(scope, receive, send)
            return
        try:
            self._draining.enter()
        except ApiError as error:
            await error.response()(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        finally:
            self._draining.leave()
