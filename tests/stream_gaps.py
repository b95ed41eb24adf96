"""A server of the trained model as a process, and what its streams wait beside an attacker."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import httpx
from trained_fixtures import TRAINED

NUM_STREAMS = 4
BEFORE_S = 20.0
"""For streams without an attacker."""
MOST_TIMES = 3
"""A gap is long above so many medians of those before; the streams' rate may sink so far."""
MOST_OF_TIME = 0.2
"""What all long gaps may take of the streams' time, beyond what they take without an attacker."""
LONGEST_S = 1.0
"""One gap, where none was longer before."""


class Served(NamedTuple):
    """A server that is ready, and its process."""

    url: str
    pid: int


@dataclass(slots=True)
class Waits:
    """What plain streams beside one another waited: seconds between their parts, the shortest
    first, and those for which they were looked at."""

    gaps: list[float] = field(default_factory=list[float])
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Parts a second."""
        return len(self.gaps) / self.seconds

    def at(self, share: float) -> float:
        """The gap that so many of all are shorter than."""
        return self.gaps[int(share * len(self.gaps))]

    def share_above(self, most_s: float) -> float:
        """The part of the streams' time that gaps above `most_s` took: one of 2 s is as long as
        two hundred of 10 ms."""
        return sum(gap for gap in self.gaps if gap > most_s) / sum(self.gaps)


@contextmanager
def served(artifact: Path, *options: str) -> Generator[Served]:
    """A server of an artifact."""
    line = [sys.executable, "-m", "lostwax", "serve", str(artifact), "--checkpoint", str(TRAINED)]
    line += ["--port", "0", "--threads", "1", *options]
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        found = ""
        for told in process.stderr:
            if match := re.search(r"http://[\d.:]+\d", told):
                found = match[0]
            if "is ready" in told:
                break
        threading.Thread(target=process.stderr.read, daemon=True).start()
        try:
            yield Served(found, process.pid)
        finally:
            process.terminate()


@contextmanager
def streams(url: str) -> Generator[Waits]:
    """Plain streams beside what is done meanwhile; behind that, what they waited."""
    waits, over = Waits(), threading.Event()
    with ThreadPoolExecutor(NUM_STREAMS) as pool:
        began = time.perf_counter()
        each = [pool.submit(_gaps, url, over) for _ in range(NUM_STREAMS)]
        try:
            yield waits
        finally:
            over.set()
        waits.gaps = sorted(gap for found in each for gap in found.result())
        waits.seconds = time.perf_counter() - began


def _gaps(url: str, over: threading.Event) -> list[float]:
    """Seconds between the parts of streams, one after another; nothing of what comes when it is
    over, which nobody disturbs any more."""
    found = list[float]()
    body = {"prompt": "Once upon a time", "max_tokens": 300, "temperature": 0, "ignore_eos": True}
    with httpx.Client(base_url=url, timeout=60) as client:
        while not over.is_set():
            with client.stream("POST", "/v1/completions", json=body | {"stream": True}) as answer:
                assert answer.status_code == 200
                before = None
                for line in answer.iter_lines():
                    if line.startswith("data: {"):
                        now = time.perf_counter()
                        found += [] if before is None else [now - before]
                        before = now
                    if over.is_set():
                        break
    return found


def require_alike(before: Waits, beside: Waits) -> None:
    """Print what streams waited before and beside an attack; the latter is not far above."""
    for name, share in (("median", 0.5), ("95 %", 0.95), ("99 %", 0.99)):
        was, now = before.at(share), beside.at(share)
        print(f"gaps, {name}: {1e3 * was:.1f} ms before, {1e3 * now:.1f} ms beside")
    long_s = MOST_TIMES * before.at(0.5)
    of_time, now_of_time = before.share_above(long_s), beside.share_above(long_s)
    told = f"gaps above {1e3 * long_s:.0f} ms: {of_time:.1%} of the time before, {now_of_time:.1%}"
    print(f"{told} beside")
    assert now_of_time < of_time + MOST_OF_TIME, told
    told = f"parts a second: {before.rate:.1f} before, {beside.rate:.1f} beside"
    print(told)
    assert MOST_TIMES * beside.rate > before.rate, told
    told = f"the longest gap: {before.gaps[-1]:.2f} s before, {beside.gaps[-1]:.2f} s beside"
    print(told)
    assert beside.gaps[-1] < max(MOST_TIMES * before.gaps[-1], LONGEST_S), told
