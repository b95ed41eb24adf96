"""Answers HEAD wherever GET is answered: the HTTP server leaves the body away. Knows no route."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send


class HeadAsGet:
    """ASGI middleware. The application below sees GET."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection event, as ASGI has it."""
        is_head = scope["type"] == "http" and scope["method"] == "HEAD"
        # A copy: the server looks into its own to know that it must not send the body.
        await self._app({**scope, "method": "GET"} if is_head else scope, receive, send)
