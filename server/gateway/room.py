"""How many connections are open, and which of them must go for a new one. Knows no HTTP.

A connection that waits for its client (idle, half a head, half a body, an answer that lies unread)
can be closed at any time; one whose request is under way is left alone. So whoever opens
connections and does nothing takes room from himself only: the address with most waiting connections
loses the longest waiting one.
"""

from __future__ import annotations

import resource
from collections.abc import Hashable
from contextlib import suppress
from typing import Protocol

RESERVED_FILES = 64
"""Open files that are no connections: sockets and pipes of the engine, the log, SPARE, accepts."""
MAX_CONNECTIONS = 4096
MIN_CONNECTIONS = 16
MAX_FILES = 65536
BACKLOG = 1024
"""Connections that the system keeps until they are accepted."""
SPARE = 16
"""Connections above the bound that are told so, in a proper answer."""


class TooFewFiles(ValueError):
    """The process may open too few files to serve; the message says how many it needs."""


class Connection(Hashable, Protocol):
    """What is open."""

    @property
    def address(self) -> str:
        """Where the client is: connections of one address are taken to be one client's."""
        ...

    def abort(self) -> None:
        """Close at once."""
        ...


class Room:
    """The open connections, `most` of them at most."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: set[Connection] = set()
        self._waiting: dict[str, dict[Connection, None]] = {}

    def enter(self, new: Connection) -> bool:
        """Take a new connection in, which waits. False where there was no room to be made."""
        self._open.add(new)
        has_room = len(self._open) <= self._most or self._make_room()
        self.wait(new)
        if len(self._open) > self._most + SPARE:
            self.leave(new)
            new.abort()
        return has_room

    def wait(self, connection: Connection) -> None:
        """It waits for its client from now on, unless it did already."""
        if connection in self._open:
            self._waiting.setdefault(connection.address, {}).setdefault(connection)

    def proceed(self, connection: Connection) -> None:
        """It does not wait for its client any more."""
        waiting = self._waiting.get(connection.address, {})
        waiting.pop(connection, None)
        if not waiting:
            self._waiting.pop(connection.address, None)

    def leave(self, connection: Connection) -> None:
        """It is closed."""
        self._open.discard(connection)
        self.proceed(connection)

    def _make_room(self) -> bool:
        if not self._waiting:
            return False
        longest = next(iter(max(self._waiting.values(), key=len)))
        self.leave(longest)
        longest.abort()
        return True


def max_connections() -> int:
    """Connections that the limit on open files leaves room for, once raised as far as it goes.

    Raises TooFewFiles.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):  # some systems take less than they say
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    files = MAX_FILES if soft == resource.RLIM_INFINITY else soft
    if files < RESERVED_FILES + MIN_CONNECTIONS:
        raise TooFewFiles(
            f"this process may open {files} files, serving takes"
            f" {RESERVED_FILES + MIN_CONNECTIONS}; raise the limit with ulimit -n"
        )
    return min(files - RESERVED_FILES, MAX_CONNECTIONS)
