"""One connection on a clock that the test sets: who it is, and how long it may read nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest
from starlette.types import Receive, Scope, Send
from uvicorn.config import Config

from lostwax.server.gateway.connection import BoundedConnection, GatewayState
from lostwax.server.gateway.room import Room

HEAD_S, UNREAD_S, WAITS_S = 1000.0, 10.0, 5.0


class _Timer:
    def __init__(self, at: float, call: Callable[[], None]) -> None:
        self.at, self.call = at, call
        self.is_over = False

    def cancel(self) -> None:
        self.is_over = True


class _Loop:
    """Only time, which passes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[_Timer] = []

    def call_later(self, delay_s: float, call: Callable[..., None], *given: object) -> _Timer:
        self.timers.append(_Timer(self.now + delay_s, lambda: call(*given)))
        return self.timers[-1]

    def pass_time(self, seconds: float) -> None:
        until = self.now + seconds
        while due := [t for t in self.timers if not t.is_over and t.at <= until]:
            timer = min(due, key=lambda t: t.at)
            self.now, timer.is_over = timer.at, True
            timer.call()
        self.now = until


class _Transport:
    """A client at an address, of whose answers `unread` bytes wait."""

    def __init__(self, client: tuple[str, int]) -> None:
        self.client = client
        self.unread = 0
        self.is_aborted = False

    def get_extra_info(self, name: str) -> tuple[str, int] | None:
        return self.client if name in ("peername", "sockname") else None

    def get_write_buffer_size(self) -> int:
        return self.unread

    def set_write_buffer_limits(self, high: int) -> None:
        assert high == 0

    def is_closing(self) -> bool:
        return self.is_aborted

    def close(self) -> None:
        """Nothing more is sent."""

    def abort(self) -> None:
        self.is_aborted = True


async def _app(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError("no request comes")


def _connected(host: str = "192.0.2.7") -> tuple[BoundedConnection, _Transport, _Loop]:
    loop, transport = _Loop(), _Transport((host, 4711))
    state = GatewayState(Room(4), HEAD_S, UNREAD_S, WAITS_S)
    config = Config(_app, ws="none", log_config=None, proxy_headers=False)
    connection = BoundedConnection(config, state, {}, cast(asyncio.AbstractEventLoop, loop))
    connection.connection_made(cast(Any, transport))
    return connection, transport, loop


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::1", "::/64"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:ffff:ffff:ffff", "2001:db8::/64"),
        ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_a_client_is_its_host_or_of_ipv6_its_network(host: str, address: str) -> None:
    assert _connected(host)[0].address == address


def test_hosts_of_ipv4_that_come_over_ipv6_are_no_network() -> None:
    one, other = (_connected(f"::ffff:192.0.2.{n}")[0].address for n in (7, 8))
    assert one != other


def test_a_client_that_reads_nothing_is_closed_at_the_deadline() -> None:
    connection, transport, loop = _connected()
    transport.unread = 100
    connection.pause_writing()
    loop.pass_time(UNREAD_S - 0.1)
    assert not transport.is_aborted
    loop.pass_time(0.2)
    assert transport.is_aborted


def test_a_client_that_has_read_all_lives_longer_than_the_deadline() -> None:
    connection, transport, loop = _connected()
    transport.unread = 100
    connection.pause_writing()
    loop.pass_time(UNREAD_S / 2)
    connection.resume_writing()
    transport.unread = 200  # of the next answer, which is not waited for so long yet
    connection.pause_writing()
    loop.pass_time(UNREAD_S - 0.1)
    assert not transport.is_aborted
    loop.pass_time(0.2)
    assert transport.is_aborted


def test_a_client_that_reads_slowly_gets_the_whole_deadline_each_time() -> None:
    connection, transport, loop = _connected()
    transport.unread = 100
    connection.pause_writing()
    for unread in (99, 98, 97):
        transport.unread = unread
        loop.pass_time(UNREAD_S)
        assert not transport.is_aborted
    loop.pass_time(UNREAD_S)
    assert transport.is_aborted


def test_a_closed_connection_leaves_no_timer() -> None:
    connection, transport, loop = _connected()
    transport.unread = 100
    connection.pause_writing()
    connection.connection_lost(None)
    assert [timer for timer in loop.timers if not timer.is_over] == []
