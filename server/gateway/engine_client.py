"""What the gateway needs of an engine, wherever it runs. Knows no HTTP and no socket."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Literal, Protocol

from lostwax.server.engine.messages import (
    Cancel,
    Command,
    EngineInfo,
    Failed,
    Output,
    Stats,
    Submit,
)
from lostwax.server.gateway.start_clock import Progress

EngineState = Literal["starting", "ready", "late", "dead"]
"""`late`: it takes requests, but its heartbeat is overdue."""


class EngineLost(RuntimeError):
    """The engine ended, fell silent or has not started; its requests are gone.

    The message is for clients: it never says what went wrong inside.
    """

    def __init__(self, message: str, code: str = "engine_unavailable") -> None:
        super().__init__(message)
        self.code = code

    def again(self) -> EngineLost:
        """The same for another request: raised twice, one exception keeps the traces of both."""
        return EngineLost(str(self), self.code)


STOPPED = EngineLost("the server is stopping", "shutting_down")


class RequestFailed(RuntimeError):
    """The engine ended one request without its answer."""

    def __init__(self, failed: Failed) -> None:
        super().__init__(failed.message)
        self.code = failed.code


class EngineClient(Protocol):
    """An engine that is started, asked and stopped from one event loop."""

    @property
    def state(self) -> EngineState:
        """Whether requests are taken now."""
        ...

    @property
    def info(self) -> EngineInfo | None:
        """Facts of the engine; None until it was ready once."""
        ...

    @property
    def progress(self) -> Progress | None:
        """How far the engine's start is; None unless it is starting, or silent before one."""
        ...

    @property
    def stats(self) -> Stats | None:
        """What the engine last told of its work; None where it does not report."""
        ...

    @property
    def num_restarts(self) -> int:
        """How many times the engine was started again."""
        ...

    async def start(self) -> None:
        """Begin to start the engine; `state` says when it is ready."""
        ...

    async def stop(self, reason: EngineLost = STOPPED) -> None:
        """End the engine, and every request with `reason`. Further calls do nothing."""
        ...

    def stream(self, requests: Sequence[Submit]) -> AsyncGenerator[Output, None]:
        """Events of a group of requests until all their choices have ended. Closing it cancels the
        rest.

        Raises EngineLost or RequestFailed; then the whole group is over.
        """
        ...

    def cancel(self, request: str) -> None:
        """End one choice early, by its name; its stream gets a last Output, `cancelled`."""
        ...


Mail = Output | Failed | EngineLost


MAX_IN_A_ROW = 64
"""Pieces that a reader gets before others have their turn: a client that did not read for long may
have left thousands, and each costs the loop some 10 us."""


MAX_UNREAD = 1 << 19
"""Pieces that may wait for their readers, all together: about half a kilobyte each."""
TOO_SLOW = "client_too_slow"
"""The code of a group that gave way."""


class Mailbox:
    """A queue that one task reads: an asyncio.Queue costs several times as much a token."""

    def __init__(self) -> None:
        self._mail: deque[Mail] = deque()
        self._reader: asyncio.Future[None] | None = None
        self._in_a_row = 0

    def put(self, mail: Mail) -> None:
        """Add a piece, and wake the reader."""
        self._mail.append(mail)
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    @property
    def num_unread(self) -> int:
        """Pieces that lie here."""
        return len(self._mail)

    def replace(self, mail: Mail) -> None:
        """Forget what lies here, for a last piece."""
        self._mail.clear()
        self.put(mail)

    async def get(self) -> Mail:
        """The oldest piece."""
        if self._in_a_row == MAX_IN_A_ROW:
            self._in_a_row = 0
            await asyncio.sleep(0)
        while not self._mail:
            self._in_a_row = 0
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        self._in_a_row += 1
        return self._mail.popleft()


class Mailboxes:
    """Routes events to the groups that wait for them. Unaddressed events are dropped.

    A client that hardly reads leaves its answer here. Where `most` pieces lie unread in all, the
    group that has most gives way.
    """

    def __init__(self, most: int = MAX_UNREAD) -> None:
        self._boxes: dict[str, Mailbox] = {}
        self._most = most
        self._num_since = 0
        """Events since what lies unread was counted."""

    def open(self, names: Sequence[str]) -> Mailbox:
        """One box for all of a group's events."""
        box = Mailbox()
        self._boxes.update(dict.fromkeys(names, box))
        return box

    def close(self, names: Sequence[str]) -> None:
        """Forget a group."""
        for name in names:
            self._boxes.pop(name, None)

    def deliver(self, event: Output | Failed) -> None:
        """Put an event into its group's box."""
        box = self._boxes.get(event.request)
        if box is None:
            return
        box.put(event)
        self._num_since += 1
        if 8 * self._num_since > self._most:  # to count for each event would cost more than it
            self._num_since = 0
            self._bound()

    def _bound(self) -> None:
        named = {id(box): (box, name) for name, box in self._boxes.items()}
        num_unread = sum([box.num_unread for box, _ in named.values()])
        if num_unread > self._most:
            box, name = max(named.values(), key=lambda each: each[0].num_unread)
            message = f"{box.num_unread} parts of the answer waited for the client to read them"
            box.replace(Failed(name, TOO_SLOW, message))

    def fail_all(self, error: EngineLost) -> None:
        """Tell every group, once, that the engine is gone."""
        for box in {id(box): box for box in self._boxes.values()}.values():
            box.put(error.again())
        self._boxes.clear()


async def stream_group(
    mailboxes: Mailboxes, send: Callable[[Command], None], requests: Sequence[Submit]
) -> AsyncGenerator[Output, None]:
    """Submits a group and yields its outputs; however it ends, what is unfinished is cancelled."""
    names = [name for request in requests for name in request.names]
    unfinished = set(names)
    box = mailboxes.open(names)
    try:
        for request in requests:
            send(request)
        while unfinished:
            mail = await box.get()
            if isinstance(mail, EngineLost):
                unfinished.clear()
                raise mail
            if isinstance(mail, Failed):
                unfinished.discard(mail.request)
                raise RequestFailed(mail)
            if mail.finish is not None:
                unfinished.discard(mail.request)
            yield mail
    finally:
        mailboxes.close(names)
        for name in sorted(unfinished):
            send(Cancel(name))
