"""Keeps web pages of other sites away from a server that their visitor can reach. Knows no route.

A browser runs anyone's pages beside a server on loopback. A page whose name is made to point here
(DNS rebinding) betrays itself by `Host`; one that sends its form here (cross-site request forgery)
by `Origin`, or by a body that is not declared as JSON, which needs leave that nobody gives. Who may
use the server over the network is not this file's question: `key_guard.py` asks for keys.
A POST that no route takes need not be JSON: it is answered as any other wrong method or path.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

from lostwax.server.gateway.errors import MAX_SHOWN_CHARS, ApiError

_HOST = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([^:\[\]]+))(?::\d*)?")
_JSON = re.compile(
    r"""application/json(?:\s*;\s*(?:charset=(?:utf-?8|"utf-?8")|(?!charset=)[\w-]+=[\w./:-]+)?)*\s*""",
    re.ASCII | re.IGNORECASE,
)
_MAX_TYPE_CHARS = 128
"""Before the pattern is tried, so that what it costs has a bound."""


class BrowserGuard:
    """ASGI middleware. `bound` is the host that the server listens on; `hosts` are further names by
    which clients may call it, `origins` those whose pages may, `routes` those below. Cookies are
    left behind: no route has any, and to parse them may take quadratic time (CVE-2024-7592)."""

    def __init__(
        self,
        app: ASGIApp,
        bound: str,
        hosts: tuple[str, ...],
        origins: tuple[str, ...],
        routes: Sequence[BaseRoute],
    ) -> None:
        self._app = app
        self._routes = routes
        self._names = {bound.lower(), "localhost", *(name.lower() for name in hosts)}
        self._any_address = _is_unspecified(bound)
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection event, as ASGI has it."""
        if scope["type"] == "http":
            try:
                self._check(scope, Headers(scope=scope))
            except ApiError as error:
                await error.response()(scope, receive, send)
                return
            kept = [header for header in scope["headers"] if header[0] != b"cookie"]
            scope = {**scope, "headers": kept}
        await self._app(scope, receive, send)

    def _check(self, scope: Scope, headers: Headers) -> None:
        host, origin = headers.get("host"), headers.get("origin")
        if host is not None and not self._is_ours(host):  # every browser sends it
            raise ApiError(
                403,
                f"this server is not called {_short(host)}; start it with --allow-host NAME for a"
                " name that should lead here",
                code="host_not_allowed",
            )
        if origin is not None and not self._is_allowed(origin, host):
            raise ApiError(
                403,
                f"pages of {_short(origin)} may not use this server; start it with --allow-origin"
                " ORIGIN for one that should",
                code="origin_not_allowed",
            )
        if (
            scope["method"] == "POST"
            and not _is_json(headers.get("content-type", ""))
            and self._takes(scope)
        ):
            raise ApiError(
                415,
                "the body must be declared as JSON; send Content-Type: application/json",
                code="unsupported_media_type",
            )

    def _takes(self, scope: Scope) -> bool:
        """Whether a route would answer."""
        return any(route.matches(scope)[0] is Match.FULL for route in self._routes)

    def _is_ours(self, host: str) -> bool:
        found = _HOST.fullmatch(host)
        if found is None:
            return False
        name = (found[1] or found[2]).lower().rstrip(".")
        if name in self._names:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return self._any_address or address.is_loopback

    def _is_allowed(self, origin: str, host: str | None) -> bool:
        # The scheme is not compared: something before the server may speak TLS.
        return origin in self._origins or origin.partition("://")[2] == host


def _is_unspecified(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _is_json(content_type: str) -> bool:
    return len(content_type) <= _MAX_TYPE_CHARS and _JSON.fullmatch(content_type) is not None


def _short(value: str) -> str:
    return repr(value[:MAX_SHOWN_CHARS])
