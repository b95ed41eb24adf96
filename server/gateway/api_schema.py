"""Describes routes for `/openapi.json`: what they take, and every answer that they give. Knows no
request or answer of its own.

Rules that hold between fields of a request, and bounds that are the model's, stand in no schema:
a request that breaks one is a 400 whose `param` names the field.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import msgspec
from fastapi import Response

from lostwax.server.gateway.answer_models import ErrorBody

_STATUSES = {
    400: "A parameter is wrong, unknown or unsupported; `param` names it",
    401: "The server asks for an API key, and this is none of its keys",
    403: "Host is not a name of this server, or Origin not that of a page that may use it",
    404: "No such model",
    408: "The body came too slowly",
    413: "The body is too large, or takes too long to read",
    415: "The body is not declared as application/json",
    429: "The queue is full; see Retry-After",
    500: "The server failed on this request; its log says why",
    503: "The engine is starting, or the server is shutting down; see Retry-After",
    504: "The answer took longer than `serve --request-timeout` allows",
}
OPEN = (403, 500)
"""What every route may answer beside what it is for."""
GUARDED = (401, *OPEN, 503)
"""The same of a route that asks for a key and is closed while the server shuts down."""
OF_BODIES = (400, 401, 403, 404, 408, 413, 415, 429, 500, 503)
"""The same of a route with a body."""
OF_ANSWERS = (*OF_BODIES, 504)
"""The same of a route that generates: with what the engine may end a request."""
_HEADERS = {
    401: {"WWW-Authenticate": {"required": True, "schema": {"type": "string"}}},
    429: {"Retry-After": {"required": True, "schema": {"type": "integer", "minimum": 1}}},
    503: {"Retry-After": {"required": True, "schema": {"type": "integer", "minimum": 1}}},
}


def described(
    answer: Any,
    errors: Sequence[int] = GUARDED,
    *,
    body: type[msgspec.Struct] | None = None,
    event: Any = None,
    named_event: Any = None,
    lines: Sequence[Any] = (),
    error: Any = ErrorBody,
    unavailable: Sequence[Any] = (),
    parameters: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """FastAPI's arguments of a route that answers `answer` and validates nothing by FastAPI.

    `errors` are its other statuses, `body` what it takes, `event` an event of its stream, if it can
    stream (`named_event` where events have names and an error is one of them; where they are lines
    of JSON, `lines` has their shapes), `error` the shape of its errors, and `unavailable` its
    answers with the status 503, where they have others.
    """
    content = _json(answer) | ({} if event is None else _stream(event))
    if named_event is not None:
        content |= _named_stream(named_event)
    if lines:
        shapes = [schema_of(each) for each in lines]
        content["application/x-ndjson"] = {"itemSchema": {"anyOf": shapes}}
    extra: dict[str, Any] = {}
    if body is not None:
        extra["requestBody"] = {"required": True, "content": _json(body)}
    if parameters:
        extra["parameters"] = list(parameters)
    answers = _answers(content, errors, error, unavailable or (error,))
    return {"response_class": Response, "responses": answers, "openapi_extra": extra}


def described_text(media_type: str, errors: Sequence[int]) -> dict[str, Any]:
    """The same of a route that answers text and takes nothing."""
    content = {media_type.partition(";")[0]: {"schema": {"type": "string"}}}
    return {
        "response_class": Response,
        "responses": _answers(content, errors, ErrorBody, (ErrorBody,)),
    }


def _answers(
    content: dict[str, Any], errors: Sequence[int], error: Any, unavailable: Sequence[Any]
) -> dict[int, Any]:
    answers: dict[int, Any] = {200: {"description": "The answer", "content": content}}
    for status in errors:
        kinds = unavailable if status == 503 else (error,)
        answers[status] = {"description": _STATUSES[status], "content": _json(*kinds)}
        if status in _HEADERS:
            answers[status]["headers"] = _HEADERS[status]
    return answers


def require_key(document: dict[str, Any], open_paths: Sequence[str]) -> None:
    """Say in the whole document that all routes ask for an API key, but for `open_paths`."""
    header = {"type": "apiKey", "in": "header", "name": "X-Api-Key"}
    schemes = {"key": {"type": "http", "scheme": "bearer"}, "key_header": header}
    document.setdefault("components", {})["securitySchemes"] = schemes
    document["security"] = [{"key": []}, {"key_header": []}]
    for path in open_paths:
        for route in document["paths"][path].values():
            route["security"] = []


def schema_of(kind: Any) -> dict[str, Any]:
    """The JSON schema of a type, without references."""
    (schema,), definitions = msgspec.json.schema_components((kind,))
    return _inlined(schema, definitions)


def _json(*kinds: Any) -> dict[str, Any]:
    first, *others = map(schema_of, kinds)
    return {"application/json": {"schema": {"anyOf": [first, *others]} if others else first}}


def _stream(event: Any) -> dict[str, Any]:
    """Server-sent events, written as in OpenAPI 3.2: many of `event`, then `[DONE]` or an error."""
    part = {"event": {"const": "message"}, "data": _json_text(event)}
    error = {"event": {"const": "error"}, "data": _json_text(ErrorBody)}
    done = {"event": {"const": "message"}, "data": {"const": "[DONE]"}}
    items = [
        {"type": "object", "properties": fields, "required": ["data"]} for fields in (part, done)
    ]
    items.append({"type": "object", "properties": error, "required": ["data", "event"]})
    return {"text/event-stream": {"itemSchema": {"anyOf": items}}}


def _named_stream(event: Any) -> dict[str, Any]:
    """The same of events whose names say what they are."""
    fields = {"event": {"type": "string"}, "data": _json_text(event)}
    item = {"type": "object", "properties": fields, "required": ["event", "data"]}
    return {"text/event-stream": {"itemSchema": item}}


def _json_text(kind: Any) -> dict[str, Any]:
    content = {"contentMediaType": "application/json", "contentSchema": schema_of(kind)}
    return {"type": "string"} | content


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    """The schema without references: they would be looked up in the whole document."""
    if isinstance(schema, float) and schema.is_integer():
        return int(schema)  # msgspec's bounds are doubles
    if isinstance(schema, list):
        return [_inlined(each, definitions) for each in schema]  # pyright: ignore[reportUnknownVariableType]
    if not isinstance(schema, dict):
        return schema
    fields = cast("dict[str, Any]", schema)  # JSON's objects have text as keys
    if "$ref" in fields:
        return _inlined(definitions[fields["$ref"].rpartition("/")[2]], definitions)
    return {name: _inlined(value, definitions) for name, value in fields.items()}
