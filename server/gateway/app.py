"""The HTTP application: routes, readiness and error shapes. Knows no torch and no scheduler."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from lostwax.server.gateway.answering import Answering
from lostwax.server.gateway.api_schema import described
from lostwax.server.gateway.body_reader import BodyReader
from lostwax.server.gateway.chat_models import ChatRequest
from lostwax.server.gateway.engine_client import EngineClient
from lostwax.server.gateway.errors import ApiError, json_response
from lostwax.server.gateway.limits import Admission, BodyLimit
from lostwax.server.gateway.models import CompletionRequest
from lostwax.server.gateway.request_id import RequestId
from lostwax.server.gateway.tokenizer import Codec


@dataclass(frozen=True, slots=True)
class Settings:
    """What an operator may choose. `model` replaces the checkpoint's name."""

    model: str | None = None
    max_queued_reqs: int = 512
    max_queued_tokens: int = 2_000_000


def create_app(client: EngineClient, codec: Codec, settings: Settings) -> FastAPI:
    """The application over an engine, which it starts and stops with itself."""
    admission = Admission(settings.max_queued_reqs, settings.max_queued_tokens)
    reader = BodyReader(codec)
    answering = Answering(client, codec, reader, admission, settings.model)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        await client.start()
        reader.start()
        try:
            yield
        finally:
            await reader.stop()
            await client.stop()

    app = FastAPI(title="lostwax", lifespan=lifespan)
    _answer_errors(app)

    @app.get("/health")
    async def health() -> Response:  # pyright: ignore[reportUnusedFunction]
        status = 503 if client.state == "dead" else 200
        return json_response({"status": client.state}, status)

    @app.get("/ready")
    async def ready() -> Response:  # pyright: ignore[reportUnusedFunction]
        answering.ready_info()
        return json_response({"status": "ready"})

    @app.get("/v1/models")
    async def models() -> Response:  # pyright: ignore[reportUnusedFunction]
        info = answering.ready_info()
        model = {
            "id": settings.model or info.model,
            "object": "model",
            "created": 0,
            "owned_by": "lostwax",
            "max_model_len": info.max_context,
        }
        return json_response({"object": "list", "data": [model]})

    @app.post("/v1/completions", **described(CompletionRequest))
    async def completions(http: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
        return await answering.respond(http, "completions")

    @app.post("/v1/chat/completions", **described(ChatRequest))
    async def chat_completions(http: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
        return await answering.respond(http, "chat")

    app.add_middleware(BodyLimit)
    app.add_middleware(RequestId)
    return app


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
