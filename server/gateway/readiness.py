"""Whether the engine takes requests, in words for clients. Knows no route.

While the engine starts, an error says the phase, how much of the start's time has passed, and by
Retry-After about when it will be over; requests are not held until then. Of an engine that is
silent and not yet lost, Retry-After says when it answers at the latest, killed and started again.
"""

from __future__ import annotations

from typing import Any

from lostwax.server.engine.messages import EngineInfo
from lostwax.server.gateway.engine_client import EngineClient, EngineLost
from lostwax.server.gateway.errors import RETRY_AFTER_S, ApiError

UNAVAILABLE = "engine_unavailable"


def require_engine(client: EngineClient) -> EngineInfo:
    """Facts of an engine that takes requests; ApiError 503 while it does not."""
    if client.state not in ("ready", "late") or client.info is None:
        raise _unavailable(client)
    return client.info


def require_ready(client: EngineClient) -> None:
    """ApiError 503 unless the engine takes requests and its heartbeat is on time."""
    require_engine(client)
    if client.state == "late":
        raise ApiError(
            503,
            "the engine's heartbeat is late",
            code=UNAVAILABLE,
            retry_after_s=_retry_s(client),
            details=_details(client),
        )


def lost(client: EngineClient, error: EngineLost) -> ApiError:
    """What a request is told whose engine ended."""
    return ApiError(503, str(error), code=error.code, retry_after_s=_retry_s(client))


def engine_health(client: EngineClient) -> dict[str, Any]:
    """State, and how far a start is."""
    return {"status": client.state} | _details(client)


def _unavailable(client: EngineClient) -> ApiError:
    progress, retry_s = client.progress, _retry_s(client)
    message = "the engine has ended"
    if client.state == "starting":
        message = "the engine is starting"
    if progress is not None:
        message += f" ({progress.phase}, {progress.percent} %); try again in {retry_s} s"
    return ApiError(503, message, code=UNAVAILABLE, retry_after_s=retry_s, details=_details(client))


def _retry_s(client: EngineClient) -> int:
    return RETRY_AFTER_S if client.progress is None else client.progress.retry_s


def _details(client: EngineClient) -> dict[str, Any]:
    progress = client.progress
    return {} if progress is None else {"phase": progress.phase, "percent": progress.percent}
