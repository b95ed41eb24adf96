"""What a client's leaving ends, and that whoever ends tasks waits for them."""

from __future__ import annotations

import asyncio

import pytest
from starlette.types import Message

from lostwax.server.gateway.end_tasks import end_tasks
from lostwax.server.gateway.stream import ClientLeft, unless_client_leaves


async def _work(ended: list[str], seconds: float) -> str:
    """Ends in some turns of the loop, however it is ended."""
    try:
        await asyncio.sleep(seconds)
        return "done"
    finally:
        await asyncio.sleep(0.01)
        ended.append("work")


async def _leaves() -> Message:
    return {"type": "http.disconnect"}


async def _stays() -> Message:
    await asyncio.sleep(60)
    return {"type": "http.disconnect"}


def test_a_client_that_leaves_ends_the_work_for_it() -> None:
    ended: list[str] = []

    async def run() -> None:
        async with asyncio.timeout(10):
            with pytest.raises(ClientLeft):
                await unless_client_leaves(_leaves, _work(ended, 60))
        assert ended == ["work"], "it had not ended when the request did"

    asyncio.run(run())


def test_a_client_that_stays_has_its_answer() -> None:
    assert asyncio.run(unless_client_leaves(_stays, _work([], 0))) == "done"


def test_tasks_have_ended_when_their_end_is_over() -> None:
    ended: list[str] = []

    async def run() -> None:
        tasks = [asyncio.create_task(_work(ended, 60)) for _ in range(2)]
        await asyncio.sleep(0)
        await end_tasks(*tasks)
        assert all(task.done() for task in tasks)
        assert ended == ["work", "work"]

    asyncio.run(run())


def test_who_is_ended_while_it_waits_for_an_end_ends() -> None:
    async def run() -> None:
        task = asyncio.create_task(_work([], 60))
        await asyncio.sleep(0)
        caller = asyncio.create_task(end_tasks(task))
        await asyncio.sleep(0)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller

    asyncio.run(run())
