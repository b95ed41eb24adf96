"""Measures for how long a machine did not run what it should have run: a process for each of its
processors does nothing but look. A virtual machine stops so while others have its processors, which
no accounting inside it tells.

`python machine_gaps.py PROCESSOR` looks until its input ends and prints what it saw.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress

import msgspec
from loop_gaps import Gap, LoopGaps


@contextmanager
def machine_gaps() -> Generator[list[Gap]]:
    """Those of all processors, each of which was watched; filled as the context ends."""
    gaps: list[Gap] = []
    with ExitStack() as stack:
        watchers = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, __file__, str(processor)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                )
            )
            for processor in sorted(os.sched_getaffinity(0))
        ]
        for watcher in watchers:
            assert watcher.stdout is not None
            assert watcher.stdout.readline() == b"watching\n"
        try:
            yield gaps
        finally:
            for watcher in watchers:
                gaps += msgspec.json.decode(watcher.communicate(timeout=20)[0], type=list[Gap])


def held_s(gap: Gap, of_machine: Sequence[Gap]) -> float:
    """What is left of a gap of a loop without the longest that the machine did not run in it."""
    begin_s = gap.end_s - gap.held_s
    stopped = (
        min(gap.end_s, each.end_s) - max(begin_s, each.end_s - each.held_s) for each in of_machine
    )
    return gap.held_s - max(0.0, max(stopped, default=0.0))


def ran_s(gap: Gap, of_machine: Sequence[Gap]) -> float:
    """What is left of a time that all processors were needed for, without that in which one was
    stopped."""
    end_s, left_s = gap.end_s, gap.held_s
    for each in sorted(of_machine, key=lambda other: -other.end_s):
        begin_s = max(gap.end_s - gap.held_s, each.end_s - each.held_s)
        stop_s = min(end_s, each.end_s)
        if stop_s > begin_s:
            left_s -= stop_s - begin_s
            end_s = begin_s
    return left_s


def longest_held_s(gaps: Sequence[Gap], of_machine: Sequence[Gap]) -> float:
    """For how long a loop was held by what it did, at most."""
    return max((held_s(gap, of_machine) for gap in gaps), default=0.0)


async def _watch() -> None:
    gaps = LoopGaps()
    watching = asyncio.create_task(gaps.watch())
    await asyncio.sleep(0)  # it looks once
    sys.stdout.write("watching\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    watching.cancel()
    sys.stdout.write(msgspec.json.encode(gaps.gaps).decode())


if __name__ == "__main__":
    os.sched_setaffinity(0, {int(sys.argv[1])})
    with suppress(PermissionError):  # before all that is measured; else what it waited is told
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    asyncio.run(_watch())
