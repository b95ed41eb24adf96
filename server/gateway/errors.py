"""Errors in the OpenAI shape. Knows statuses and words, never what caused them inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from starlette.responses import Response

RETRY_AFTER_S = 1
"""Where nothing better is known."""
MAX_SHOWN_CHARS = 64
"""Longer names are cut in messages: they are the client's."""


class Way(NamedTuple):
    """What a client may do instead, with a field of its request: `send` `n` `: 1`."""

    verb: str
    field: str
    rest: str = ""


class ApiError(Exception):
    """An answer that is an error: `{"error": {message, type, param, code}}` with a status.

    `way` is what a client may also do, behind the message's own remedy: it is left out where an
    interface lacks its field. `index` is of the message of a chat that the sentence is about, which
    begins with it. `details` stand beside the four. `headers` go with the answer. A 429
    or 503 says by Retry-After when to come back: in `retry_after_s` seconds.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        way: Way | None = None,
        index: int | None = None,
        retry_after_s: int = RETRY_AFTER_S,
        details: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message)
        self.status = status
        self._message = message
        self._way = way
        self._index = index
        self._place = "" if index is None else f"messages[{index}] "
        self.code = code
        self.param = param
        self.details = dict(details or {})
        self.headers = dict(headers or {})
        if status in (429, 503):
            self.headers["Retry-After"] = str(retry_after_s)

    def __str__(self) -> str:
        return self.message

    @property
    def message(self) -> str:
        """The sentence."""
        said = self._place + self._message
        if self._way is None:
            return said
        verb, field, rest = self._way
        return f"{said}, or {verb} {field}{rest}"

    def locate(self, places: Sequence[str]) -> None:
        """Say it of what a client sent: where, for each message of the chat that was made of it."""
        if self._index is not None:
            self._place = f"{places[self._index]} "

    def rename(self, names: Mapping[str, str | None]) -> None:
        """Say it by the names of another interface's fields; None is one that it lacks."""
        if self.param is not None and (name := names.get(self.param)):
            said = f"{self.param!r}: "
            if self._message.startswith(said):
                self._message = f"{name!r}: {self._message.removeprefix(said)}"
            self.param = name
        if self._way is not None:
            name = names.get(self._way.field, self._way.field)
            self._way = None if name is None else self._way._replace(field=name)

    @property
    def body(self) -> dict[str, Any]:
        """The JSON body."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        if self.status == 429:
            kind = "rate_limit_error"
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": error | self.details}

    def response(self) -> Response:
        """The HTTP answer."""
        return json_response(self.body, self.status, self.headers)


def model_not_found(name: str, served: str) -> ApiError:
    """No such model; the one that is served has the name `served`."""
    message = f"model {name[:MAX_SHOWN_CHARS]!r} is not served here; use {served!r}"
    return ApiError(404, message, code="model_not_found", param="model")


def json_response(
    body: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """A JSON answer. Not FastAPI's own: that one copies the body through an encoder first."""
    return Response(msgspec.json.encode(body), status, headers, media_type="application/json")
