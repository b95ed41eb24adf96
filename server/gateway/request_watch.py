"""Follows each HTTP request to its end and tells observers. Knows no metric and no log."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lostwax.server.gateway.request_record import Observer, RequestRecord

OTHER = "other"
"""The route of a path that the application does not know: labels stay few whatever is asked."""


class RequestWatch:
    """ASGI middleware below the one that gives request ids."""

    def __init__(
        self, app: ASGIApp, routes: Sequence[BaseRoute], observers: Sequence[Observer]
    ) -> None:
        self._app = app
        self._routes = [route for route in routes if isinstance(route, Route)]
        self._observers = observers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection event, as ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = RequestRecord(
            method=scope["method"],
            route=self._route(scope),
            request_id=scope["state"]["request_id"],
            client=scope["client"][0] if scope["client"] else "",
            trace_context=_trace_context(scope),
            observers=self._observers,
        )
        scope["state"]["record"] = record

        is_whole = False

        async def received() -> Message:
            message = await receive()
            if message["type"] == "http.disconnect" and not is_whole:
                record.has_left = True
            return message

        async def sent(message: Message) -> None:
            nonlocal is_whole
            if message["type"] == "http.response.start":
                record.status = message["status"]
            elif message["type"] == "http.response.body":
                is_whole = not message.get("more_body", False)
            await send(message)

        try:
            await self._app(scope, received, sent)
        finally:
            record.end()

    def _route(self, scope: Scope) -> str:
        for route in self._routes:
            if route.matches(scope)[0] is not Match.NONE:
                return route.path
        return OTHER


def _trace_context(scope: Scope) -> dict[str, str]:
    return {
        name.decode(): value.decode("latin-1")
        for name, value in scope["headers"]
        if name in (b"traceparent", b"tracestate")
    }


def record_of(scope: Scope) -> RequestRecord | None:
    """The record of a request; None where nobody observes."""
    return scope["state"].get("record")
