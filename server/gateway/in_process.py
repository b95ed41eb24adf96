"""An engine in the gateway's own process, for `run`, `eval` and tests. Knows no socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

from lostwax.server.engine.failure_log import FailureLog
from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.messages import Cancel, Command, EngineInfo, Output, Stats, Submit
from lostwax.server.engine.stats import StatsClock
from lostwax.server.gateway.end_tasks import end_tasks
from lostwax.server.gateway.engine_client import (
    STOPPED,
    EngineLost,
    EngineState,
    Mailboxes,
    stream_group,
)


class InProcessEngine:
    """Steps an EngineCore in a worker thread, one step at a time; implements EngineClient."""

    def __init__(self, core: EngineCore, log: FailureLog | None = None) -> None:
        self._core = core
        self._log = log or FailureLog()
        self._gone = EngineLost("the engine has not started")
        self._mailboxes = Mailboxes()
        self._commands: list[Command] = []
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._state: EngineState = "starting"
        self._report = StatsClock()
        self._stats: Stats | None = None

    @property
    def state(self) -> EngineState:
        """Whether requests are taken now."""
        return self._state

    @property
    def info(self) -> EngineInfo | None:
        """Facts of the engine; None until it was ready once."""
        return self._core.info if self._state == "ready" else None

    @property
    def progress(self) -> None:
        """Not told apart: a start in this process is over before requests come."""
        return None

    @property
    def stats(self) -> Stats | None:
        """What the engine last told of its work."""
        return self._stats

    @property
    def num_restarts(self) -> int:
        """None: it ends with its first error."""
        return 0

    async def start(self) -> None:
        """Warm up, then step in the background."""
        await asyncio.to_thread(self._core.warm_up)
        self._state = "ready"
        self._task = asyncio.create_task(self._run())

    async def stop(self, reason: EngineLost = STOPPED) -> None:
        """End the engine, and every request with `reason`."""
        if self._state != "dead":
            self._state, self._gone = "dead", reason
        self._mailboxes.fail_all(self._gone)
        if self._task is not None:
            await end_tasks(self._task)

    def stream(self, requests: Sequence[Submit]) -> AsyncGenerator[Output, None]:
        """Events of a group of requests until all have finished."""
        if self._state != "ready":
            raise self._gone.again()
        return stream_group(self._mailboxes, self._send, requests)

    def cancel(self, request: str) -> None:
        """End one request early."""
        self._send(Cancel(request))

    def _send(self, command: Command) -> None:
        self._commands.append(command)
        self._wake.set()

    async def _run(self) -> None:
        while True:
            if not (self._core.has_work or self._core.is_settling or self._commands):
                self._wake.clear()
                await self._wake.wait()
            commands, self._commands = self._commands, []
            try:
                events = [event for command in commands for event in self._core.handle(command)]
                events += await asyncio.to_thread(self._core.step)
            except Exception as error:
                self._log("the engine ended", error)
                self._state, self._gone = "dead", EngineLost("the engine ended")
                self._mailboxes.fail_all(self._gone)
                return
            is_busy, is_settling = self._core.has_work, self._core.is_settling
            if self._report.is_due(is_busy=is_busy, is_settling=is_settling):
                self._stats = self._core.stats
            for event in events:
                self._mailboxes.deliver(event)
