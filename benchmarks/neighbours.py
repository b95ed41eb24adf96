"""What of the machine other processes took meanwhile: a time is worth little where that is much."""

from __future__ import annotations

import os
import time
from pathlib import Path


class Neighbours:
    """Begins to count when it is made. Linux alone says it; elsewhere the share is None."""

    def __init__(self) -> None:
        self._began_s, self._busy_s, self._own_s = time.perf_counter(), _busy_s(), _own_s()

    def share(self) -> float | None:
        """Their processor time over that of all cores, since then."""
        before, now = self._busy_s, _busy_s()
        if before is None or now is None:
            return None
        passed = (time.perf_counter() - self._began_s) * (os.cpu_count() or 1)
        return round(max(0.0, now - before - (_own_s() - self._own_s)) / passed, 3)


def _own_s() -> float:
    times = os.times()
    return times.user + times.system


def _busy_s() -> float | None:
    """Seconds that all cores were busy since the machine began, in steps of 10 ms."""
    try:
        fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    except OSError:
        return None
    user, nice, system, _idle, _waits, irq, soft_irq, stolen = map(int, fields[:8])
    ticks = user + nice + system + irq + soft_irq + stolen
    return ticks / os.sysconf("SC_CLK_TCK")
