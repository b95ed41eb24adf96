"""Errors in the OpenAI shape. Knows statuses and words, never what caused them inside."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import Response
from pydantic import ValidationError

RETRY_AFTER_S = 1
MAX_NAME_CHARS = 256
"""Longer names of parameters are cut: they are the client's."""
_MEMBERS = ("str", "int", "constrained-str", "constrained-int")
"""How pydantic names members of unions, beside those with brackets such as `list[str]`."""


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


def from_validation(error: ValidationError) -> ApiError:
    """The first thing that is wrong with a request body, with the parameter's name."""
    found = error.errors(include_url=False, include_context=False)
    # Of a union's errors the one that got deepest into the value is what the client meant.
    first = max(
        (e for e in found if e["loc"][:1] == found[0]["loc"][:1]), key=lambda e: len(e["loc"])
    )
    path = _path(first["loc"])
    param = str(first["loc"][0])[:MAX_NAME_CHARS] if first["loc"] else None
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "json_invalid":
        return ApiError(400, f"the body is not JSON: {message}", code="invalid_json")
    if first["type"] == "extra_forbidden":
        message = f"unknown parameter {path!r}; remove it"
        return ApiError(400, message, code="unknown_parameter", param=param)
    if first["type"] == "missing":
        return ApiError(400, f"{path!r} is required", code="missing_parameter", param=param)
    where = f"{path!r}: " if param else ""
    return ApiError(400, f"{where}{message}", code="invalid_value", param=param)


def _path(location: tuple[int | str, ...]) -> str:
    """A place in the body as `messages[0].content`; the names of a union's members are left out."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif not path:
            path = part
        elif part not in _MEMBERS and "[" not in part:
            path += f".{part}"
    return path[:MAX_NAME_CHARS]
