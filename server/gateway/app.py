"""The HTTP application: routes, readiness and error shapes. Knows no torch and no scheduler."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from lostwax.server.engine.failure_log import FailureLog
from lostwax.server.engine.log_lines import LogLines
from lostwax.server.gateway.access_log import AccessLog
from lostwax.server.gateway.admission import Admission
from lostwax.server.gateway.answer_models import (
    Health,
    Model,
    Models,
    Ready,
)
from lostwax.server.gateway.answering import Answering
from lostwax.server.gateway.api_schema import (
    GUARDED,
    OPEN,
    described,
    described_text,
    require_key,
)
from lostwax.server.gateway.body_limit import BodyLimit
from lostwax.server.gateway.body_reader import BodyReader
from lostwax.server.gateway.body_routes import add_body_routes
from lostwax.server.gateway.border import Border
from lostwax.server.gateway.browser_guard import BrowserGuard
from lostwax.server.gateway.draining import HEALTH, Draining, DrainingGate
from lostwax.server.gateway.engine_client import EngineClient
from lostwax.server.gateway.errors import ApiError, json_response, model_not_found
from lostwax.server.gateway.explain import Explainer, add_explain
from lostwax.server.gateway.foreign_errors import ForeignErrors
from lostwax.server.gateway.head_as_get import HeadAsGet
from lostwax.server.gateway.key_guard import KeyGuard
from lostwax.server.gateway.ollama_answer import OllamaError, OllamaModels
from lostwax.server.gateway.operations import add_operations
from lostwax.server.gateway.page_routes import add_page
from lostwax.server.gateway.readiness import engine_health, require_engine, require_ready
from lostwax.server.gateway.request_id import RequestId
from lostwax.server.gateway.request_record import Observer
from lostwax.server.gateway.request_watch import RequestWatch
from lostwax.server.gateway.settings import Settings
from lostwax.server.gateway.tokenizer import Codec

if TYPE_CHECKING:
    from lostwax.server.gateway.traces import Traces


def create_app(
    client: EngineClient,
    codec: Codec,
    settings: Settings,
    *,
    draining: Draining | None = None,
    log: FailureLog | None = None,
) -> FastAPI:
    """The application over an engine, which it starts and stops with itself.

    Once `draining` has begun, new requests are refused. `log` is told of what nobody expected.
    """
    draining = draining or Draining()
    admission = Admission(settings.max_admitted_reqs, settings.max_admitted_tokens)
    reader = BodyReader(codec)
    answering = Answering(
        client,
        codec,
        reader,
        admission,
        settings.model,
        settings.request_timeout_s,
        settings.chats,
    )

    lines = LogLines(settings.log_format)
    traces = _traces(client, settings, lines)
    explainer = _explainer(settings, lines)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        await client.start()
        reader.start()
        try:
            yield
        finally:
            await reader.stop()
            if explainer is not None:
                await explainer.stop()
            await client.stop()
            if traces is not None:
                await asyncio.to_thread(traces.stop)

    # Their pages load scripts from elsewhere.
    app = FastAPI(title="lostwax", lifespan=lifespan, docs_url=None, redoc_url=None)
    _answer_errors(app)

    _add_probes(app, client, draining)
    add_page(app)

    add_body_routes(app, answering)
    _list_models(app, client, settings)
    add_operations(app, client, settings.build)
    if explainer is not None:
        add_explain(app, client, explainer)
    observers = (
        [_metrics(app, client, admission, settings)] if settings.metrics else list[Observer]()
    )
    if traces is not None:
        observers.append(traces)
    if settings.log_requests:
        observers.append(AccessLog(lines))
    _guard(app, settings, draining, log or FailureLog(lines.failure), observers)
    if settings.key_digests:
        require_key(app.openapi(), [HEALTH])  # which the application keeps
    return app


def _answer_errors(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def api_error(_: Request, error: ApiError) -> Response:  # pyright: ignore[reportUnusedFunction]
        return error.response()

    @app.exception_handler(HTTPException)
    async def http_error(http: Request, error: HTTPException) -> Response:  # pyright: ignore[reportUnusedFunction]
        message = f"{http.method} {http.url.path}: {error.detail}"
        code = "method_not_allowed" if error.status_code == 405 else "not_found"
        headers = dict(error.headers or {})
        if "GET" in headers.get("Allow", ""):
            headers["Allow"] += ", HEAD"
        return ApiError(error.status_code, message, code=code, headers=headers).response()


def _add_probes(app: FastAPI, client: EngineClient, draining: Draining) -> None:
    @app.get("/health", **described(Health, (*OPEN, 503), unavailable=(Health,)))
    async def health() -> Response:  # pyright: ignore[reportUnusedFunction]
        running = {"running": draining.num_running}
        if draining.has_begun:
            return json_response({"status": "draining"} | running)
        dead = client.state == "dead"
        return json_response(engine_health(client) | running, 503 if dead else 200)

    @app.get("/ready", **described(Ready))
    async def ready() -> Response:  # pyright: ignore[reportUnusedFunction]
        require_ready(client)
        return json_response({"status": "ready"})


def _list_models(app: FastAPI, client: EngineClient, settings: Settings) -> None:
    def served() -> dict[str, Any]:
        info = require_engine(client)
        return {
            "id": settings.model or info.model,
            "object": "model",
            "created": 0,
            "owned_by": "lostwax",
            "max_model_len": info.max_context,
        }

    @app.get("/v1/models", **described(Models))
    async def models() -> Response:  # pyright: ignore[reportUnusedFunction]
        return json_response({"object": "list", "data": [served()]})

    @app.get("/api/tags", **described(OllamaModels, error=OllamaError))
    async def tags() -> Response:  # pyright: ignore[reportUnusedFunction]
        name = served()["id"]
        digest = {} if settings.build is None else {"digest": settings.build.digest}
        return json_response({"models": [{"name": name, "model": name} | digest]})

    name_in_path = {"name": "wanted", "in": "path", "required": True, "schema": {"type": "string"}}

    @app.get(
        "/v1/models/{wanted:path}",
        **described(Model, (404, *GUARDED), parameters=[name_in_path]),
    )
    async def model(http: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
        wanted: str = http.path_params["wanted"]
        found = served()
        if wanted != found["id"]:
            raise model_not_found(wanted, found["id"])
        return json_response(found)


def _metrics(
    app: FastAPI, client: EngineClient, admission: Admission, settings: Settings
) -> Observer:
    # Imported here: who has no metrics need not wait for the library.
    from lostwax.server.gateway.admission_metrics import AdmissionMetrics
    from lostwax.server.gateway.engine_metrics import EngineMetrics
    from lostwax.server.gateway.metrics import MEDIA_TYPE, Metrics

    metrics = Metrics(
        AdmissionMetrics(admission),
        EngineMetrics(client),
        token_histograms=settings.token_histograms,
    )

    @app.get("/metrics", **described_text(MEDIA_TYPE, (401, *OPEN)))
    async def exposition() -> Response:  # pyright: ignore[reportUnusedFunction]
        return Response(metrics.exposition(), media_type=MEDIA_TYPE)

    return metrics


def _traces(client: EngineClient, settings: Settings, lines: LogLines) -> Traces | None:
    if settings.otlp_traces_endpoint is None:
        return None
    from lostwax.server.gateway.traces import Traces  # the libraries are an extra

    def model() -> str | None:
        return settings.model or (client.info.model if client.info else None)

    return Traces(settings.otlp_traces_endpoint, model, lines.say)


def _explainer(settings: Settings, lines: LogLines) -> Explainer | None:
    build = settings.build
    if build is None or build.folder is None:
        return None
    return Explainer(build.folder, build.certificates, lines.failure)


def _guard(
    app: FastAPI,
    settings: Settings,
    draining: Draining,
    log: FailureLog,
    observers: Sequence[Observer],
) -> None:
    # The last is the first that a request passes. Keys are asked for behind CORS: a browser sends
    # none where it asks whether a page may.
    app.add_middleware(HeadAsGet)
    app.add_middleware(DrainingGate, draining=draining)
    app.add_middleware(BodyLimit)
    if settings.key_digests:
        app.add_middleware(KeyGuard, digests=settings.key_digests)
    if settings.allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.allowed_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["X-Request-Id", "Retry-After"],
        )
    app.add_middleware(
        BrowserGuard,
        bound=settings.host,
        hosts=settings.allowed_hosts,
        origins=settings.allowed_origins,
        routes=app.routes,
    )
    app.add_middleware(Border, log=log)
    if observers:
        app.add_middleware(RequestWatch, routes=app.routes, observers=observers)
    app.add_middleware(ForeignErrors)
    app.add_middleware(RequestId)
