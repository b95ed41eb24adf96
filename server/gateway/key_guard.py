"""Asks every request for an API key: all paths but health and the page's files are closed to who
has none.

Keys are compared by their digests, all of them, in a time that tells nothing of them. Knows no
route.
"""

from __future__ import annotations

import hashlib
import hmac

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from lostwax.server.gateway.draining import HEALTH
from lostwax.server.gateway.errors import ApiError
from lostwax.server.gateway.page_routes import FILES

OPEN_PATHS = {HEALTH, *FILES}


class KeyGuard:
    """ASGI middleware. `digests` are those of the keys that are taken."""

    def __init__(self, app: ASGIApp, digests: tuple[bytes, ...]) -> None:
        self._app = app
        self._digests = digests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection event, as ASGI has it."""
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        scheme, _, key = headers.get("authorization", "").partition(" ")
        other = headers.get("x-api-key", "")
        is_bearer = scheme.lower() == "bearer"
        if (is_bearer and self._knows(key.strip())) or (other and self._knows(other.strip())):
            await self._app(scope, receive, send)
            return
        key = key or other
        message = "an API key is needed: send Authorization: Bearer KEY, or X-Api-Key: KEY"
        if key:
            message = "the API key is not one of this server's"
        challenge = {"WWW-Authenticate": 'Bearer error="invalid_token"' if key else "Bearer"}
        error = ApiError(401, message, code="invalid_api_key", headers=challenge)
        await error.response()(scope, receive, send)

    def _knows(self, key: str) -> bool:
        given = hashlib.sha256(key.encode("latin-1")).digest()  # as the header came
        found = [hmac.compare_digest(given, each) for each in self._digests]
        return any(found)
