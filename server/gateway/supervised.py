"""An engine in its own process: starts it, talks to it, notices its end, starts it again.

Every life of the engine has its own socket, so that no frame of a dead one reaches the next.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from pathlib import Path

import zmq
import zmq.asyncio

from lostwax.server.engine.messages import (
    Cancel,
    Command,
    EngineInfo,
    Failed,
    Fatal,
    Output,
    Submit,
    decode_events,
    encode,
)
from lostwax.server.gateway.engine_client import EngineLost, EngineState, Mailboxes, stream_group

SILENCE_S = 10.0
"""Heartbeats come every quarter second; so long a silence means a hung or stopped process."""
START_SILENCE_S = 120.0
"""Loading libraries may hold the interpreter, and with it the heartbeats, for long."""
RESTART_DELAY_S = 0.5


class SupervisedEngine:
    """Keeps one engine process running; implements EngineClient.

    `command` gives the argument list for a socket address. An engine that ends before it was ever
    ready is not started again: the same inputs would fail the same way (`failure` says why).
    `model` is the name under which it is announced, if not its own.
    """

    def __init__(
        self,
        command: Callable[[str], Sequence[str]],
        *,
        announce: Callable[[str], None],
        silence_s: float = SILENCE_S,
        model: str | None = None,
    ) -> None:
        self._command = command
        self._announce = announce
        self._silence_s = silence_s
        self._model = model
        self._mailboxes = Mailboxes()
        self._outbox: asyncio.Queue[Command] = asyncio.Queue()
        self._state: EngineState = "starting"
        self._info: EngineInfo | None = None
        self._fatal: str | None = None
        self._task: asyncio.Task[None] | None = None
        self._ended = asyncio.Event()
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

    async def start(self) -> None:
        """Begin to start the engine process, unless that was begun."""
        if self._task is None:
            self._task = asyncio.create_task(self._supervise())

    async def stop(self) -> None:
        """End the engine and every request."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        self._lose("the server is stopping")
        self._state = "dead"

    @property
    def _max_silence_s(self) -> float:
        return self._silence_s if self._state == "ready" else START_SILENCE_S

    async def wait_failed(self) -> str:
        """Return only when the engine could not start, with the reason."""
        await self._ended.wait()
        return self.failure or "the engine ended"

    def stream(self, requests: Sequence[Submit]) -> AsyncGenerator[Output, None]:
        """Events of a group of requests until all have finished."""
        if self._state != "ready":
            raise EngineLost(f"the engine is {self._state}")
        return stream_group(self._mailboxes, self._send, requests)

    def cancel(self, request: str) -> None:
        """End one request early."""
        self._send(Cancel(request))

    def _send(self, command: Command) -> None:
        self._outbox.put_nowait(command)

    async def _supervise(self) -> None:
        folder = Path(tempfile.mkdtemp(prefix="lostwax-"))
        try:
            for life in range(1_000_000):
                reason = await self._live(f"ipc://{folder}/engine-{life}")
                self._lose(reason)
                if self._info is None:
                    self.failure, self._state = reason, "dead"
                    self._ended.set()
                    return
                self._announce(f"{reason}; starting it again")
                await asyncio.sleep(RESTART_DELAY_S)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    async def _live(self, address: str) -> str:
        """One life of the engine: returns why it ended."""
        context = zmq.asyncio.Context()
        socket = context.socket(zmq.PAIR)
        socket.set_hwm(0)
        socket.linger = 0
        socket.bind(address)
        # A session of its own: Ctrl-C reaches the gateway alone, which then ends the engine.
        process = await asyncio.create_subprocess_exec(
            *self._command(address), stdin=asyncio.subprocess.DEVNULL, start_new_session=True
        )
        self.pid = process.pid
        tasks = [
            asyncio.create_task(self._read(socket)),
            asyncio.create_task(self._write(socket)),
            asyncio.create_task(process.wait()),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if process.returncode is None:
                failed = next(task for task in tasks if task.done())
                reason = f"the engine {failed.exception() or failed.result()}"
                self._lose(reason)  # at once: ending the process takes a while
                return reason
            self._lose(f"the engine ended with code {process.returncode}")
            tasks[0].cancel()
            with suppress(asyncio.CancelledError):
                await tasks[0]
            while await socket.poll(20):
                self._take(await socket.recv())
            return self._fatal or f"the engine ended with code {process.returncode}"
        finally:
            for task in tasks:
                task.cancel()
            socket.close()
            context.destroy(linger=0)
            await _end(process)

    async def _read(self, socket: zmq.asyncio.Socket) -> str:
        while await socket.poll(int(self._max_silence_s * 1000)):
            self._take(await socket.recv())
        return f"was silent for {self._max_silence_s:g} s"

    async def _write(self, socket: zmq.asyncio.Socket) -> None:
        while True:
            commands = [await self._outbox.get()]
            while not self._outbox.empty():
                commands.append(self._outbox.get_nowait())
            await socket.send(encode(commands))

    def _take(self, frame: bytes) -> None:
        for event in decode_events(frame):
            match event:
                case Output() | Failed():
                    self._mailboxes.deliver(event)
                case EngineInfo():
                    self._info, self._state = event, "ready"
                    name = self._model or event.model
                    self._announce(f"{name} is ready: the engine has run a real step")
                case Fatal(message=message):
                    self._fatal = message
                case _:
                    pass  # a heartbeat says all by arriving

    def _lose(self, reason: str) -> None:
        self._state = "starting"
        self._mailboxes.fail_all(EngineLost(reason))
        self._outbox = asyncio.Queue()


async def _end(process: asyncio.subprocess.Process) -> None:
    # Killed at once and not asked: it has nothing to save, and a stopped process would not answer.
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
