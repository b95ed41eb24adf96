"""The end of tasks that this process started: cancelled and awaited. Knows not what they do."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any


async def end_tasks(*tasks: asyncio.Task[Any]) -> None:
    """Cancel the tasks and return when they have ended; what they raise is not looked at.

    To await a cancelled task under `suppress(CancelledError)` alone would swallow the caller's own
    cancellation, too, which is raised here: a deadline or Ctrl-C around the caller must end it.
    """
    caller = asyncio.current_task()
    assert caller is not None, "a coroutine runs in a task"
    cancelled_before = caller.cancelling()
    for task in tasks:
        task.cancel()
    for task in tasks:
        # asyncio.wait would take one turn of the loop more, in which a client that has its whole
        # answer may ask again and find the place of its first request still taken.
        with suppress(asyncio.CancelledError, Exception):
            await task
        if caller.cancelling() > cancelled_before:
            raise asyncio.CancelledError
