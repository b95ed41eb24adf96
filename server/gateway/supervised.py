"""An engine in its own process: starts it, talks to it, notices its end, starts it again.

Every life of the engine has its own socket, so that no frame of a dead one reaches the next.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zmq
import zmq.asyncio

from lostwax.backends.runtime.error_sentence import described
from lostwax.server.engine.messages import (
    Cancel,
    Command,
    EngineInfo,
    Event,
    Failed,
    Fatal,
    Heartbeat,
    Output,
    Phase,
    Stats,
    Submit,
    decode_events,
    encode,
)
from lostwax.server.gateway.end_tasks import end_tasks
from lostwax.server.gateway.engine_client import (
    STOPPED,
    EngineLost,
    EngineState,
    Mailboxes,
    stream_group,
)
from lostwax.server.gateway.own_folder import own_folder
from lostwax.server.gateway.peer_end import PeerEnd
from lostwax.server.gateway.settings import WATCHDOG_S
from lostwax.server.gateway.start_clock import ESTIMATE_S, SILENT, Progress, StartClock

LATE_S = 1.0
"""Heartbeats come every quarter second; one so late is a sign that something is wrong."""
SILENCE_S = 10.0
"""So long a silence means a hung or stopped process: it is killed and started again."""
START_SILENCE_S = 120.0
"""Loading libraries may hold the interpreter, and with it the heartbeats, for long."""
RESTART_DELAY_S = 0.5
LAST_WORDS_S = 2.0
"""For what an engine sent before it ended: it is here at once unless this process lacks a core."""
EVENTS_AT_ONCE = 64
"""Each wakes a stream: those of a large step in one turn would hold the loop for long."""
LOST = "the engine ended and is starting again; send the request again"
"""What clients hear; why it ended is said to the operator alone."""


@dataclass(frozen=True, slots=True)
class Link:
    """What one life of the engine is told of its gateway.

    `address` is the socket that the gateway binds, `meeting` a file in its private folder over
    which ranks may meet, `parent` its own pid.
    """

    address: str
    meeting: Path
    parent: int


class SupervisedEngine:
    """Keeps one engine process running; implements EngineClient.

    `command` gives the argument list of a life. An engine that ends before it was ever ready is not
    started again: the same inputs would fail the same way (`failure` says why). One whose step
    takes longer than `watchdog_s` seconds is killed and started again. `model` is the name
    under which it is announced, if not its own. `expected_s` is what the first start's phases may
    take, in seconds by name. `ready` is called each time that the engine is.
    """

    def __init__(
        self,
        command: Callable[[Link], Sequence[str]],
        *,
        announce: Callable[[str], None],
        silence_s: float = SILENCE_S,
        late_s: float = LATE_S,
        watchdog_s: float = WATCHDOG_S,
        model: str | None = None,
        expected_s: Mapping[str, float] = ESTIMATE_S,
        ready: Callable[[], None] = lambda: None,
    ) -> None:
        self._command = command
        self._announce = announce
        self._silence_s = silence_s
        self._late_s = late_s
        self._watchdog_s = watchdog_s
        self._step_s = 0.0
        self._model = model
        self._ready = ready
        self._mailboxes = Mailboxes()
        self._outbox: asyncio.Queue[Command] = asyncio.Queue()
        self._state: EngineState = "starting"
        self._start = StartClock(expected_s)
        self._lost_at = 0.0  # on the monotonic clock; of a late engine
        self._info: EngineInfo | None = None
        self._stats: Stats | None = None
        self._fatal: str | None = None
        self._task: asyncio.Task[None] | None = None
        self._ended = asyncio.Event()
        self._gone = EngineLost(LOST)
        self._process: asyncio.subprocess.Process | None = None
        self._folder: Path | None = None
        self.num_restarts = 0
        self.failure: str | None = None
        self.pid: int | None = None

    @property
    def state(self) -> EngineState:
        """Whether requests are taken now."""
        return self._state

    @property
    def info(self) -> EngineInfo | None:
        """Facts of the engine; None until it was ready once."""
        return self._info

    @property
    def stats(self) -> Stats | None:
        """What the engine last told of its work; None where it does not report."""
        return self._stats

    @property
    def progress(self) -> Progress | None:
        """How far the engine's start is; None unless it is starting, or silent before one."""
        if self._state == "late":
            # At most: until the silence is too long, and as long as the last start took.
            silent_s = max(self._lost_at - time.monotonic(), 0.0)
            return Progress(SILENT, 0, silent_s + RESTART_DELAY_S + self._start.whole_s)
        return self._start.progress if self._state == "starting" else None

    async def start(self) -> None:
        """Begin to start the engine process, unless that was begun."""
        if self._task is None:
            self._start.restart()
            self._task = asyncio.create_task(self._supervise())

    async def stop(self, reason: EngineLost = STOPPED) -> None:
        """End the engine, and every request with `reason`."""
        self._lose(reason)
        self._state, self._gone = "dead", reason
        if self._task is not None:
            await end_tasks(self._task)

    def abandon(self) -> None:
        """Kill the engine and leave no trace of it: this process ends in this moment."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    async def wait_failed(self) -> str:
        """Return only when the engine could not start, with the reason."""
        await self._ended.wait()
        return self.failure or "the engine ended"

    def stream(self, requests: Sequence[Submit]) -> AsyncGenerator[Output, None]:
        """Events of a group of requests until all have finished."""
        if self._state not in ("ready", "late"):
            raise self._gone.again()
        return stream_group(self._mailboxes, self._send, requests)

    def cancel(self, request: str) -> None:
        """End one request early."""
        self._send(Cancel(request))

    def _send(self, command: Command) -> None:
        self._outbox.put_nowait(command)

    async def _supervise(self) -> None:
        try:
            with own_folder() as folder:
                self._folder = folder
                await self._live_again_and_again(folder)
        except Exception as error:  # without a socket or a process there is nothing to start again
            self.failure = described(error)
        self._lose(EngineLost(LOST))
        self._state = "dead"
        self._ended.set()

    async def _live_again_and_again(self, folder: Path) -> None:
        """Returns when the engine could not start, `failure` says why."""
        while True:
            names = (f"engine-{self.num_restarts}", f"ranks-{self.num_restarts}")
            address, meeting = (folder / name for name in names)
            reason = await self._live(Link(f"ipc://{address}", meeting, os.getpid()))
            self._lose(EngineLost(LOST))
            if self._info is None:
                self.failure = reason
                return
            self._announce(f"{reason}; starting it again")
            await asyncio.sleep(RESTART_DELAY_S)
            self.num_restarts += 1

    async def _live(self, link: Link) -> str:
        """One life of the engine: returns why it ended."""
        self._fatal, self._step_s = None, 0.0
        context = zmq.asyncio.Context()
        socket = context.socket(zmq.PAIR)
        try:
            socket.set_hwm(0)
            socket.linger = 0
            end = PeerEnd(socket)
            socket.bind(link.address)
            # A session of its own: Ctrl-C reaches the gateway alone, which then ends the engine.
            process = await asyncio.create_subprocess_exec(
                *self._command(link), stdin=asyncio.subprocess.DEVNULL, start_new_session=True
            )
            try:
                self._process, self.pid = process, process.pid
                return await self._attend(process, socket, end)
            finally:
                await _end(process)
        finally:
            socket.close()
            context.destroy(linger=0)

    async def _attend(
        self, process: asyncio.subprocess.Process, socket: zmq.asyncio.Socket, end: PeerEnd
    ) -> str:
        """Carry commands and events until the process ends or falls silent: returns which."""
        tasks = [
            asyncio.create_task(self._read(socket)),
            asyncio.create_task(self._write(socket)),
            asyncio.create_task(process.wait()),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            self._lose(EngineLost(LOST))  # at once: ending the process takes a while
            if process.returncode is None:
                return _why(next(task for task in tasks if task.done()))
            await end_tasks(tasks[0])
            await end.wait(LAST_WORDS_S)
            while await socket.poll(0):
                self._take(decode_events(await socket.recv()))
            return self._fatal or f"the engine ended with code {process.returncode}"
        finally:
            for task in tasks:
                task.cancel()

    async def _read(self, socket: zmq.asyncio.Socket) -> str:
        """Take frames as long as they come; returns that they do not."""
        while True:
            if not await _comes(socket, self._late_s):
                if self._state == "ready":
                    self._state = "late"
                    self._lost_at = time.monotonic() + self._silence_s - self._late_s
                max_silence_s = self._silence_s if self._state == "late" else START_SILENCE_S
                if not await _comes(socket, max_silence_s - self._late_s):
                    return f"the engine was silent for {max_silence_s:g} s"
            if self._state == "late":
                self._state = "ready"
            events = decode_events(await socket.recv())
            for first in range(0, len(events), EVENTS_AT_ONCE):
                if first:
                    await asyncio.sleep(0)  # for others, and for who reads what came before
                self._take(events[first : first + EVENTS_AT_ONCE])
            if self._step_s > self._watchdog_s:
                return (
                    f"a step has run for {self._step_s:.1f} s, longer than --watchdog-timeout"
                    f" {self._watchdog_s:g}"
                )

    async def _write(self, socket: zmq.asyncio.Socket) -> None:
        while True:
            commands = [await self._outbox.get()]
            while not self._outbox.empty():
                commands.append(self._outbox.get_nowait())
            await socket.send(encode(commands))

    def _take(self, events: Sequence[Event]) -> None:
        for event in events:
            match event:
                case Output() | Failed():
                    self._mailboxes.deliver(event)
                case Phase(name=name):
                    self._start.begin(name)
                case EngineInfo():
                    self._start.ready()
                    self._info, self._state = event, "ready"
                    name = self._model or event.model
                    self._announce(f"{name} is ready: the engine has run a real step")
                    self._ready()
                case Stats():
                    self._stats = event
                case Fatal(message=message):
                    self._fatal = message
                case Heartbeat(step_s=step_s):
                    self._step_s = step_s

    def _lose(self, reason: EngineLost) -> None:
        self._mailboxes.fail_all(reason)
        self._outbox = asyncio.Queue()
        self._stats = None
        if self._state in ("ready", "late"):
            self._state = "starting"
            self._start.restart()


async def _comes(socket: zmq.asyncio.Socket, within_s: float) -> bool:
    """Whether a frame comes in time. A loop that was held up looks again: frames wait for it."""
    return bool(await socket.poll(int(max(within_s, 0) * 1000)) or await socket.poll(0))


def _why(ended: asyncio.Task[Any]) -> str:
    error = ended.exception()
    return (
        f"the engine's socket failed: {type(error).__name__}: {error}" if error else ended.result()
    )


async def _end(process: asyncio.subprocess.Process) -> None:
    # Killed at once and not asked: it has nothing to save, and a stopped process would not answer.
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
