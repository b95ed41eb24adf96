"""What holds a loop is told from what stops the machine: else a test would be deaf, or false."""

from __future__ import annotations

import asyncio
import time

import pytest
from loop_gaps import Gap, LoopGaps
from machine_gaps import held_s, longest_held_s, machine_gaps, ran_s


@pytest.mark.parametrize(
    ("of_machine", "left_s"),
    [
        ([], 0.08),
        ([Gap(10.0, 0.08)], 0.0),
        ([Gap(9.99, 0.03), Gap(9.98, 0.02)], 0.05),  # two processors: the longer
        ([Gap(10.02, 0.05)], 0.05),
        ([Gap(9.9, 0.5), Gap(11.0, 0.5)], 0.08),
    ],
)
def test_what_the_machine_stopped_for_is_not_the_loops(
    of_machine: list[Gap], left_s: float
) -> None:
    assert held_s(Gap(10.0, 0.08), of_machine) == pytest.approx(left_s, abs=1e-9)


@pytest.mark.parametrize(
    ("of_machine", "left_s"),
    [
        ([], 0.08),
        ([Gap(9.99, 0.03), Gap(9.98, 0.03)], 0.04),  # two processors, of which one was stopped
        ([Gap(9.95, 0.02), Gap(10.01, 0.02)], 0.05),
        ([Gap(10.5, 1.0), Gap(9.96, 0.01)], 0.0),
        ([Gap(9.97, 0.04), Gap(9.96, 0.01)], 0.04),  # one within the other
    ],
)
def test_what_ran_on_all_processors_stood_while_one_was_stopped(
    of_machine: list[Gap], left_s: float
) -> None:
    assert ran_s(Gap(10.0, 0.08), of_machine) == pytest.approx(left_s, abs=1e-9)


def test_a_loop_that_is_held_is_seen_beside_a_machine_that_runs() -> None:
    async def hold() -> list[Gap]:
        loop = LoopGaps()
        watching = asyncio.create_task(loop.watch())
        await asyncio.sleep(0.02)
        time.sleep(0.3)  # this is what is looked for
        await asyncio.sleep(0.02)
        watching.cancel()
        return loop.gaps

    with machine_gaps() as of_machine:
        gaps = asyncio.run(hold())
    assert longest_held_s(gaps, of_machine) > 0.15
