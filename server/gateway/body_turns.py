"""Bounds how many bodies are read at once, and how many large ones wait. Knows no body."""

from __future__ import annotations

import asyncio

from lostwax.server.gateway.errors import ApiError

MAX_WAITING = 32
"""Large bodies. The number of requests bounds the others."""


class BodyTurns:
    """So many bodies at a time. What takes its turn here waits for nothing that takes it
    elsewhere."""

    def __init__(self, num_at_once: int) -> None:
        self._free = asyncio.Semaphore(num_at_once)
        self._num_waiting = 0

    async def take(self, *, is_large: bool = False) -> None:
        """Wait for a turn; ApiError 429 where as many large bodies do as may."""
        if not is_large:
            await self._free.acquire()
            return
        if self._num_waiting >= MAX_WAITING:
            message = "too many large requests wait to be read; try again later"
            raise ApiError(429, message, code="queue_full")
        self._num_waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._num_waiting -= 1

    def give_back(self) -> None:
        """End a turn that was taken."""
        self._free.release()
