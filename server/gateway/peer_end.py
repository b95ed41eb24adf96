"""Tells when all that a socket's peer had sent has come. Knows no message."""

from __future__ import annotations

import time

import zmq
import zmq.asyncio
from zmq.utils.monitor import recv_monitor_message


class PeerEnd:
    """Watches a socket that is about to bind, and whose one peer ends at some time."""

    def __init__(self, socket: zmq.asyncio.Socket) -> None:
        self._events = socket.get_monitor_socket(zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)

    async def wait(self, within_s: float) -> None:
        """Return once its connection has been read to its end: the socket holds all that it sent.
        At once where it had none, and in any case after so long.

        For a peer that has ended. It can have sent nothing before its connection was accepted.
        """
        until_s, left_s = time.monotonic() + within_s, 0.0
        while await self._events.poll(int(left_s * 1000)):
            told = await recv_monitor_message(self._events)
            if told["event"] == zmq.EVENT_DISCONNECTED:
                return
            left_s = max(until_s - time.monotonic(), 0.0)
