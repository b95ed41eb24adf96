"""Routes for whoever runs the server: what it is, how far its start is. Knows no request."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Response

import lostwax
from lostwax.server.gateway.answer_models import ErrorBody, Startup, Version
from lostwax.server.gateway.api_schema import described
from lostwax.server.gateway.engine_client import EngineClient
from lostwax.server.gateway.errors import RETRY_AFTER_S, json_response
from lostwax.server.gateway.settings import Build


def add_operations(app: FastAPI, client: EngineClient, build: Build | None) -> None:
    """Add `/version` and `/startup`."""

    @app.get("/version", **described(Version))
    async def version() -> Response:  # pyright: ignore[reportUnusedFunction]
        known: dict[str, Any] = {}
        if build is not None:
            known = {"schema": build.schema, "artifact": build.digest, "target": build.target}
        return json_response({"version": lostwax.__version__} | known)

    @app.get("/startup", **described(Startup, unavailable=(Startup, ErrorBody)))
    async def startup() -> Response:  # pyright: ignore[reportUnusedFunction]
        return _startup(client)


def _startup(client: EngineClient) -> Response:
    """200 once the engine takes requests; 503 before, and when it has ended."""
    if client.state in ("ready", "late"):
        return json_response({"status": "ready", "phase": None, "percent": 100, "seconds_left": 0})
    progress = client.progress
    body: dict[str, Any] = {"status": client.state}
    retry_s = RETRY_AFTER_S
    if progress is not None:
        retry_s = progress.retry_s
        left_s = round(progress.left_s, 1)
        body |= {"phase": progress.phase, "percent": progress.percent, "seconds_left": left_s}
    return json_response(body, 503, {"Retry-After": str(retry_s)})
