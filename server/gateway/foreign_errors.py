"""Errors of `/v1/messages` in Anthropic's shape and of `/api/` in Ollama's, whoever made them.
Knows no cause.

A key that is missing, a body that is too large, a queue that is full: all are refused before a
route is known, in OpenAI's shape. Here such an answer is written anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def anthropic_error(status: int, message: str) -> dict[str, Any]:
    """The JSON of an error of Anthropic's."""
    kind = _KINDS.get(status, "api_error" if status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": message}}


def ollama_error(status: int, message: str) -> dict[str, Any]:
    """The JSON of an error of Ollama's: the status says what kind it is."""
    return {"error": message}


Shape = Callable[[int, str], dict[str, Any]]
_SHAPES: dict[str, Shape] = {"/v1/messages": anthropic_error, "/api/": ollama_error}
"""By the beginning of the path."""


class ForeignErrors:
    """ASGI middleware. An answer that is an error is short: it is held until it is whole."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection event, as ASGI has it."""
        shape = _shape_of(scope)
        if shape is None:
            await self._app(scope, receive, send)
            return
        start: Message | None = None
        content = bytearray()

        async def rewritten(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start" and message["status"] >= 400:
                start = message
            elif start is None:
                await send(message)
            else:
                content.extend(message.get("body", b""))
                if not message.get("more_body", False):
                    await _send(send, shape, start, bytes(content))

        await self._app(scope, receive, rewritten)


def _shape_of(scope: Scope) -> Shape | None:
    if scope["type"] != "http":
        return None
    path: str = scope["path"]
    return next((shape for begin, shape in _SHAPES.items() if path.startswith(begin)), None)


async def _send(send: Send, shape: Shape, start: Message, content: bytes) -> None:
    try:
        message = msgspec.json.decode(content)["error"]["message"]
        content = msgspec.json.encode(shape(start["status"], message))
    except (msgspec.DecodeError, KeyError, TypeError):
        pass  # another status than an error of ours: it goes as it is
    headers = MutableHeaders(raw=list(start["headers"]))
    headers["content-length"] = str(len(content))
    await send({**start, "headers": headers.raw})
    await send({"type": "http.response.body", "body": content, "more_body": False})
