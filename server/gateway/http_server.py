"""The HTTP server around an application: uvicorn, with bounds and an end of our own.

Knows no route. Signals are the caller's: uvicorn's handlers would end it without a drain.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Generator

import h11
import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from lostwax.server.gateway.connection import (
    HEAD_DEADLINE_S,
    UNREAD_DEADLINE_S,
    UNREAD_WAITS_S,
    BoundedConnection,
    GatewayState,
)
from lostwax.server.gateway.room import BACKLOG, MAX_CONNECTIONS, Room
from lostwax.server.gateway.tls import Tls

ACCEPTED_AT_ONCE = 16
"""Between two of these, room is made: all that wait in the backlog may be more than there is."""
KEEP_ALIVE_S = 60
"""Longer than clients keep an idle connection, so that none is closed under a request."""
LAST_ANSWERS_S = 2.0
"""What answers that are written get to reach their clients when the server ends."""


class HttpServer(uvicorn.Server):
    """Serves an application until `should_exit` is set, over TLS if it has a certificate."""

    def __init__(
        self,
        app: FastAPI,
        max_connections: int = MAX_CONNECTIONS,
        head_deadline_s: float = HEAD_DEADLINE_S,
        unread_deadline_s: float = UNREAD_DEADLINE_S,
        unread_waits_s: float = UNREAD_WAITS_S,
        tls: Tls | None = None,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                _Cuttable(app),
                http=BoundedConnection,  # uvicorn's own takes heads of any size (CVE-2025-48956)
                ws="none",
                loop="asyncio",
                log_level="error",
                server_header=False,
                proxy_headers=False,
                backlog=ACCEPTED_AT_ONCE,
                timeout_keep_alive=KEEP_ALIVE_S,
                ssl_certfile=tls and tls.certfile,
                ssl_keyfile=tls and tls.keyfile,
            )
        )
        self._head_deadline_s = head_deadline_s
        room = Room(max_connections)
        self.server_state = GatewayState(room, head_deadline_s, unread_deadline_s, unread_waits_s)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave signals as they are."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections."""
        await super().startup([])  # without a listener: uvicorn's handshakes have a minute
        loop, tls = asyncio.get_running_loop(), self.config.ssl
        for listener in sockets or []:
            server = await loop.create_server(
                self._connection,
                sock=listener,
                ssl=tls,
                ssl_handshake_timeout=self._head_deadline_s if tls else None,
                backlog=ACCEPTED_AT_ONCE,
            )
            self.servers.append(server)
            listener.listen(BACKLOG)  # asyncio listens with what it accepts at once

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, and end every connection; what is not answered by then is cut."""
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        for connection in list(self.server_state.connections):
            with contextlib.suppress(h11.LocalProtocolError):
                connection.shutdown()
        await self._tasks_end(LAST_ANSWERS_S)
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await self._tasks_end(LAST_ANSWERS_S)
        for task in self.server_state.tasks:
            task.cancel()
        await self._tasks_end(LAST_ANSWERS_S)
        await self.lifespan.shutdown()

    def _connection(self) -> BoundedConnection:
        return BoundedConnection(self.config, self.server_state, self.lifespan.state)

    async def _tasks_end(self, within_s: float) -> None:
        if self.server_state.tasks:
            await asyncio.wait(self.server_state.tasks, timeout=within_s)


class _Cuttable:
    """Where the server's own cancellation of a request ends, which uvicorn would log as a fault."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            if scope["type"] != "http":
                raise
            # the connection is closed: there is nobody to tell
