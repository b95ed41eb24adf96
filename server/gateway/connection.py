"""One HTTP connection with bounds: on the time that a client may take, and on how many there are.

uvicorn's h11 protocol has a timer for idle connections alone: half a head stays for ever, and so
does an answer that nobody reads. What it says by itself is in the API's shape here, too.
"""

from __future__ import annotations

import asyncio
import http
import socket
import struct
from typing import Any

import h11
import msgspec
from starlette.types import Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from lostwax.server.gateway.address import client_address
from lostwax.server.gateway.errors import ApiError
from lostwax.server.gateway.framing import BoundedParser
from lostwax.server.gateway.room import Room
from lostwax.server.gateway.stream import PARTS

HEAD_DEADLINE_S = 10.0
"""From the connection, or a head's first byte, to its last."""
UNREAD_DEADLINE_S = 60.0
"""A client that takes nothing of what waits for it for so long is taken to be gone."""
UNREAD_WAITS_S = 5.0
"""One that left something there for so long waits, as an idle one does, until it has taken all."""
READ_BYTES = 8192
"""At once, where asyncio takes 256 KiB: what came is parsed before others have their turn."""


class GatewayState(ServerState):
    """What the connections of one server share."""

    def __init__(
        self,
        room: Room,
        head_deadline_s: float,
        unread_deadline_s: float,
        unread_waits_s: float,
    ) -> None:
        super().__init__()
        self.room = room
        self.head_deadline_s = head_deadline_s
        self.unread_deadline_s = unread_deadline_s
        self.unread_waits_s = unread_waits_s


class BoundedConnection(H11Protocol):
    """A connection that must say what it wants, and may be closed for another while it does not."""

    def __init__(
        self,
        config: Config,
        server_state: GatewayState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.conn = BoundedParser()
        self._application = self.app
        self._room = server_state.room
        self._head_deadline_s = server_state.head_deadline_s
        self._unread_deadline_s = server_state.unread_deadline_s
        self._unread_waits_s = server_state.unread_waits_s
        self._is_unread = False
        self._head_timer: asyncio.TimerHandle | None = None
        self._reader_timer: asyncio.TimerHandle | None = None
        self._unread_timer: asyncio.TimerHandle | None = None

    @property
    def address(self) -> str:
        """The client's host; of IPv6 the network, which one client may have whole."""
        return client_address(self.client)

    def abort(self) -> None:
        """Close at once; what was still to be sent is dropped, by the system, too."""
        raw = self.transport.get_extra_info("socket")
        if raw is not None and raw.fileno() >= 0:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """It opens: there may be no room for it."""
        super().connection_made(transport)
        transport.max_size = READ_BYTES  # pyright: ignore[reportAttributeAccessIssue]
        # So that nothing stays unread without our knowing. Of TLS asyncio holds an empty buffer for
        # full where the limit is 0, and never writes again.
        is_tls = transport.get_extra_info("sslcontext") is not None
        transport.set_write_buffer_limits(int(is_tls))
        self._await_head()
        self.app = self._answer if self._room.enter(self) else _too_many

    def connection_lost(self, exc: Exception | None) -> None:
        """It is closed."""
        super().connection_lost(exc)
        self.app = self._application  # else it would hold itself
        self._room.leave(self)
        for timer in (
            self._head_timer,
            self._reader_timer,
            self._unread_timer,
            self.timeout_keep_alive_task,
        ):
            if timer is not None:
                timer.cancel()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["extensions"] = {PARTS: self._write_part}
        await self._application(scope, receive, send)

    def _write_part(self, part: bytes) -> bool:
        """Write a part of a body as one chunk, which changes nothing that h11 knows. False where
        the client has not taken what was written before, or its HTTP has no chunks. One for a
        client that has left is dropped: asyncio says of each write to it, on a line of its own,
        that it failed."""
        if self.transport.is_closing():
            return True
        if self.flow.write_paused:
            return False
        if self.conn.their_http_version != b"1.1" or not self.cycle.response_started:
            return False
        self.transport.write(b"%x\r\n%b\r\n" % (len(part), part))
        return True

    def data_received(self, data: bytes) -> None:
        """Part of a head or a body comes."""
        if not self._has_request() and self._head_timer is None:
            self._room.proceed(self)  # waits anew, for the rest of this head
            self._await_head()
        super().data_received(data)
        self._settle()

    def on_response_complete(self) -> None:
        """A response was written; the next request may be here already."""
        super().on_response_complete()
        self._settle()

    def pause_writing(self) -> None:
        """The client does not take what was written."""
        super().pause_writing()
        self._await_reader(self.transport.get_write_buffer_size())
        self._unread_timer = self.loop.call_later(self._unread_waits_s, self._leave_unread)

    def resume_writing(self) -> None:
        """It has taken all."""
        super().resume_writing()
        for timer in (self._reader_timer, self._unread_timer):
            if timer is not None:
                timer.cancel()
        self._is_unread = False
        self._settle()

    def send_400_response(self, msg: str) -> None:
        """What came is no HTTP."""
        self._refuse(ApiError(400, "the request is not valid HTTP", code="invalid_http"))

    def _has_request(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete  # pyright: ignore[reportUnnecessaryComparison]

    def _settle(self) -> None:
        has_request = self._has_request()
        if has_request and self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        if has_request and not self.cycle.more_body and not self._is_unread:
            self._room.proceed(self)
        else:
            self._room.wait(self)

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(self._head_deadline_s, self._head_is_late)

    def _head_is_late(self) -> None:
        seconds = f"{self._head_deadline_s:g} s"
        self._refuse(ApiError(408, f"the request did not arrive within {seconds}"))

    def _refuse(self, error: ApiError) -> None:
        if self.transport.is_closing():
            return
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = msgspec.json.encode(error.body)
            headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
            response = h11.Response(
                status_code=error.status,
                reason=http.HTTPStatus(error.status).phrase.encode(),
                headers=list((headers | {"Connection": "close"}).items()),
            )
            for event in (response, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _await_reader(self, unread_bytes: int) -> None:
        self._reader_timer = self.loop.call_later(
            self._unread_deadline_s, self._reader_is_late, unread_bytes
        )

    def _leave_unread(self) -> None:
        self._is_unread = True
        self._settle()

    def _reader_is_late(self, unread_bytes: int) -> None:
        left_bytes = self.transport.get_write_buffer_size()
        if left_bytes < unread_bytes:
            self._await_reader(left_bytes)
        else:
            self.abort()


async def _too_many(scope: Scope, receive: Receive, send: Send) -> None:
    error = ApiError(
        503,
        "the server has as many connections as it can; try again later",
        code="too_many_connections",
        headers={"Connection": "close"},
    )
    await error.response()(scope, receive, send)
