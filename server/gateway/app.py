"""The HTTP application: routes, readiness and error shapes. Knows no torch and no scheduler."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from fastapi import FastAPI, Request, Response
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from lostwax.server.engine.messages import EngineInfo, Submit
from lostwax.server.gateway.completions import Completion, build_submits
from lostwax.server.gateway.engine_client import EngineClient
from lostwax.server.gateway.errors import ApiError, from_validation, json_response
from lostwax.server.gateway.limits import Admission, BodyLimit
from lostwax.server.gateway.models import CompletionRequest
from lostwax.server.gateway.request_id import RequestId
from lostwax.server.gateway.stream import ClientLeft, EventStream, unless_client_leaves
from lostwax.server.gateway.tokenizer import Codec

_ERRORS = {
    400: "A parameter is wrong, unknown or unsupported; `param` names it",
    404: "No such model or path",
    408: "The body came too slowly",
    413: "The body is too large",
    429: "The queue is full; see Retry-After",
    500: "The engine failed on this request",
    503: "The engine is starting; see Retry-After",
}
_BODY_SCHEMA = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": CompletionRequest.model_json_schema()}},
    }
}


@dataclass(frozen=True, slots=True)
class Settings:
    """What an operator may choose. `model` replaces the checkpoint's name."""

    model: str | None = None
    max_queued_reqs: int = 512
    max_queued_tokens: int = 2_000_000


def create_app(client: EngineClient, codec: Codec, settings: Settings) -> FastAPI:
    """The application over an engine, which it starts and stops with itself."""
    admission = Admission(settings.max_queued_reqs, settings.max_queued_tokens)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        await client.start()
        try:
            yield
        finally:
            await client.stop()

    app = FastAPI(title="lostwax", lifespan=lifespan)
    _answer_errors(app)

    @app.get("/health")
    async def health() -> Response:  # pyright: ignore[reportUnusedFunction]
        status = 503 if client.state == "dead" else 200
        return json_response({"status": client.state}, status)

    @app.get("/ready")
    async def ready() -> Response:  # pyright: ignore[reportUnusedFunction]
        _ready_info(client)
        return json_response({"status": "ready"})

    @app.get("/v1/models")
    async def models() -> Response:  # pyright: ignore[reportUnusedFunction]
        info = _ready_info(client)
        model = {
            "id": settings.model or info.model,
            "object": "model",
            "created": 0,
            "owned_by": "lostwax",
            "max_model_len": info.max_context,
        }
        return json_response({"object": "list", "data": [model]})

    @app.post(
        "/v1/completions",
        responses={status: {"description": text} for status, text in _ERRORS.items()},
        openapi_extra=_BODY_SCHEMA,
    )
    async def completions(http: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
        body = await http.body()
        info = _ready_info(client)
        model = settings.model or info.model
        # Parsing and tokenizing a long prompt would block the loop.
        request, submits = await asyncio.to_thread(_parse, body, info, codec, model)
        ticket = admission.admit(len(submits), sum(s.num_tokens for s in submits))
        completion = Completion(request, submits, client, codec, model)
        if request.stream:
            return EventStream(completion.chunks(), ticket.release)
        try:
            return json_response(await unless_client_leaves(http.receive, completion.answer()))
        except ClientLeft:
            return Response(status_code=499)  # nobody reads it
        finally:
            ticket.release()

    app.add_middleware(BodyLimit)
    app.add_middleware(RequestId)
    return app


def _parse(
    body: bytes, info: EngineInfo, codec: Codec, model: str
) -> tuple[CompletionRequest, list[Submit]]:
    try:
        request = CompletionRequest.model_validate_json(body)
    except ValidationError as error:
        raise from_validation(error) from error
    if request.model not in (None, model):
        message = f"model {request.model!r} is not served here; use {model!r}"
        raise ApiError(404, message, code="model_not_found", param="model")
    return request, build_submits(request, info, codec)


def _ready_info(client: EngineClient) -> EngineInfo:
    if client.state != "ready" or client.info is None:
        raise ApiError(503, f"the engine is {client.state}", code="engine_unavailable")
    return client.info


def _answer_errors(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def api_error(_: Request, error: ApiError) -> Response:  # pyright: ignore[reportUnusedFunction]
        return error.response()

    @app.exception_handler(HTTPException)
    async def http_error(http: Request, error: HTTPException) -> Response:  # pyright: ignore[reportUnusedFunction]
        message = f"{http.method} {http.url.path}: {error.detail}"
        return ApiError(error.status_code, message, code="not_found").response()

    @app.exception_handler(Exception)
    async def unexpected(http: Request, _: Exception) -> Response:  # pyright: ignore[reportUnusedFunction]
        # The cause goes to the log; an answer names no internals.
        message = f"internal error in request {http.state.request_id}"
        return ApiError(500, message, code="internal_error").response()
