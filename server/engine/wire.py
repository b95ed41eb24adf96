"""The engine's end of the socket: a thread that moves frames and sends heartbeats.

A step may take seconds and holds the main thread, so the thread beats for it.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType

import msgspec
import zmq

from lostwax.backends.runtime.error_sentence import described
from lostwax.backends.runtime.say import say
from lostwax.server.engine.messages import (
    Command,
    Event,
    Fatal,
    Heartbeat,
    decode_commands,
    encode,
)

HEARTBEAT_S = 0.25
_INSIDE = "inproc://engine-events"
_STOP = b""


class EngineWire:
    """Commands in, events out, over a ZeroMQ pair socket at `address`, which the gateway binds.

    `write` is told of frames that say nothing.
    """

    def __init__(self, address: str, write: Callable[[object], None] = say) -> None:
        self._write = write
        self._step_since: float | None = None
        self._context = zmq.Context()
        self._inbox: queue.SimpleQueue[list[Command]] = queue.SimpleQueue()
        inside = self._context.socket(zmq.PAIR)
        inside.bind(_INSIDE)
        outside = self._context.socket(zmq.PAIR)
        outside.set_hwm(0)  # what the gateway admitted bounds the queue; a step never blocks on it
        outside.linger = 1000
        outside.connect(address)
        self._events = self._context.socket(zmq.PAIR)
        self._events.set_hwm(0)
        self._events.connect(_INSIDE)
        self._thread = threading.Thread(
            target=self._carry, args=(inside, outside), name="wire", daemon=True
        )
        self._thread.start()

    def __enter__(self) -> EngineWire:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self.send([Fatal(described(error))])
        self._events.send(_STOP)
        self._thread.join()
        self._events.close()
        self._context.term()

    def send(self, events: Sequence[Event]) -> None:
        """Hand events to the gateway, as one frame."""
        self._events.send(encode(events))

    def step_begins(self) -> None:
        """The engine's thread is in a step from now on: heartbeats say for how long."""
        self._step_since = time.monotonic()

    def step_ends(self) -> None:
        """It has come back."""
        self._step_since = None

    def receive(self, *, wait: bool) -> list[Command]:
        """All commands that have come; with `wait`, at least one."""
        commands = self._inbox.get() if wait else list[Command]()
        while not self._inbox.empty():
            commands += self._inbox.get()
        return commands

    def _carry(self, inside: zmq.Socket[bytes], outside: zmq.Socket[bytes]) -> None:
        poller = zmq.Poller()
        poller.register(inside, zmq.POLLIN)
        poller.register(outside, zmq.POLLIN)
        beats, next_beat = 0, time.monotonic()
        while True:
            ready = {socket for socket, _ in poller.poll(int(HEARTBEAT_S * 1000))}
            if inside in ready:
                frame = inside.recv()
                if frame == _STOP:
                    break
                outside.send(frame)
            if outside in ready:
                self._take(outside.recv())
            if time.monotonic() >= next_beat:
                beats, next_beat = beats + 1, time.monotonic() + HEARTBEAT_S
                outside.send(encode([Heartbeat(beats, self._step_s())]))
        inside.close()
        outside.close()

    def _step_s(self) -> float:
        since = self._step_since
        return 0.0 if since is None else time.monotonic() - since

    def _take(self, frame: bytes) -> None:
        try:
            self._inbox.put(decode_commands(frame))
        except msgspec.DecodeError as error:
            # One malformed frame must not end the engine; the gateway gave up on it or has a bug.
            self._write(f"engine: dropped a malformed frame: {error}")
