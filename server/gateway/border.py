"""Where an application's exceptions end: the operator's log has them, clients have a sentence.

Knows no route. Nothing that is raised below reaches the HTTP server, which would answer in a shape
of its own and log without the request's id.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lostwax.server.engine.failure_log import FailureLog
from lostwax.server.gateway.errors import ApiError


def internal_error(request_id: str) -> ApiError:
    """What a client hears of an exception that nobody expected."""
    message = f"internal error in request {request_id}; the server's log says why"
    return ApiError(500, message, code="internal_error")


class Border:
    """ASGI middleware below the one that gives request ids."""

    def __init__(self, app: ASGIApp, log: FailureLog) -> None:
        self._app = app
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection event, as ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_started = False

        async def watched(message: Message) -> None:
            nonlocal has_started
            has_started = has_started or message["type"] == "http.response.start"
            await send(message)

        request_id: str = scope["state"]["request_id"]
        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            self._log("internal error", error, [request_id])
            if not has_started:
                await internal_error(request_id).response()(scope, receive, send)
