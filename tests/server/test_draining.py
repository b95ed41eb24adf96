"""A server is idle when the last of its requests has ended, and not before."""

from __future__ import annotations

import asyncio

from lostwax.server.gateway.draining import Draining


def test_one_of_two_that_leaves_makes_nobody_idle() -> None:
    async def leave() -> list[bool]:
        draining = Draining()
        found = [await draining.idle_within(0)]
        draining.enter()
        draining.enter()
        for _ in range(2):
            found.append(await draining.idle_within(0))
            draining.leave()
        assert draining.num_running == 0
        found.append(await draining.idle_within(0))
        draining.enter()
        found.append(await draining.idle_within(0))
        return found

    assert asyncio.run(leave()) == [True, False, False, True, False]
