"""Errors of `/v1/messages` in Anthropic's shape, whoever made them. Knows no cause.

A key that is missing, a body that is too large, a queue that is full: all are refused before a
route is known, in OpenAI's shape. Here such an answer is written anew.
"""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PATH = "/v1/messages"
_KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def error_body(status: int, message: str) -> dict[str, Any]:
    """The JSON of an error."""
    kind = _KINDS.get(status, "api_error" if status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": message}}


class AnthropicErrors:
    """ASGI middleware. An answer that is an error is short: it is held until it is whole."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection event, as ASGI has it."""
        if scope["type"] != "http" or not scope["path"].startswith(PATH):
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
                    await _send(send, start, bytes(content))

        await self._app(scope, receive, rewritten)


async def _send(send: Send, start: Message, content: bytes) -> None:
    try:
        message = msgspec.json.decode(content)["error"]["message"]
        content = msgspec.json.encode(error_body(start["status"], message))
    except (msgspec.DecodeError, KeyError, TypeError):
        pass  # another status than an error of ours: it goes as it is
    headers = MutableHeaders(raw=list(start["headers"]))
    headers["content-length"] = str(len(content))
    await send({**start, "headers": headers.raw})
    await send({"type": "http.response.body", "body": content, "more_body": False})
