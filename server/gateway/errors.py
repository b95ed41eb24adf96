"""Errors in the OpenAI shape. Knows statuses and words, never what caused them inside."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.responses import Response

RETRY_AFTER_S = 1


class ApiError(Exception):
    """An answer that is an error: `{"error": {message, type, param, code}}` with a status."""

    def __init__(
        self, status: int, message: str, *, code: str | None = None, param: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param

    @property
    def body(self) -> dict[str, Any]:
        """The JSON body."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        if self.status == 429:
            kind = "rate_limit_error"
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": error}

    def response(self) -> Response:
        """The HTTP answer; overload and start-up tell when to come back."""
        retry = {"Retry-After": str(RETRY_AFTER_S)} if self.status in (429, 503) else {}
        return json_response(self.body, self.status, retry)


def json_response(
    body: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """A JSON answer. Not FastAPI's own: that one copies the body through an encoder first."""
    return Response(msgspec.json.encode(body), status, headers, media_type="application/json")
