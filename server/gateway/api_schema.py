"""Describes a route with a body for `/openapi.json`. Knows no request of its own."""

from __future__ import annotations

from typing import Any, cast

import msgspec

_STATUSES = {
    400: "A parameter is wrong, unknown or unsupported; `param` names it",
    401: "The server asks for an API key, and this is none of its keys",
    403: "Host is not a name of this server, or Origin not that of a page that may use it",
    404: "No such model or path",
    405: "The path takes other methods; see Allow",
    408: "The body came too slowly",
    413: "The body is too large, or takes too long to read",
    415: "The body is not declared as application/json",
    429: "The queue is full; see Retry-After",
    500: "The engine failed on this request",
    503: "The engine is starting, or the server is shutting down; see Retry-After",
}


def described(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """FastAPI's arguments of a route that takes this request, which it does not validate itself."""
    (schema,), definitions = msgspec.json.schema_components((kind,))
    content = {"application/json": {"schema": _inlined(schema, definitions)}}
    return {
        "responses": {status: {"description": text} for status, text in _STATUSES.items()},
        "openapi_extra": {"requestBody": {"required": True, "content": content}},
    }


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    """The schema without references: they would be looked up in the whole document."""
    if isinstance(schema, list):
        return [_inlined(each, definitions) for each in schema]  # pyright: ignore[reportUnknownVariableType]
    if not isinstance(schema, dict):
        return schema
    fields = cast("dict[str, Any]", schema)  # JSON's objects have text as keys
    if "$ref" in fields:
        return _inlined(definitions[fields["$ref"].rpartition("/")[2]], definitions)
    return {name: _inlined(value, definitions) for name, value in fields.items()}
