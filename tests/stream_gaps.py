"""A server of the trained model as a process, and what its streams wait beside an attacker."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
from trained_fixtures import TRAINED

MOST_TIMES = 3
"""What the median of the waits and the longest of nineteen in twenty may grow to."""


class Served(NamedTuple):
    """A server that is ready, and its process."""

    url: str
    pid: int


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


def gaps(url: str, until: threading.Event) -> list[float]:
    """Seconds between the parts of plain streams, one after another, in order of their length."""
    found = list[float]()
    body = {"prompt": "Once upon a time", "max_tokens": 300, "temperature": 0, "ignore_eos": True}
    with httpx.Client(base_url=url, timeout=60) as client:
        while not until.is_set():
            with client.stream("POST", "/v1/completions", json=body | {"stream": True}) as answer:
                assert answer.status_code == 200
                before = None
                for line in answer.iter_lines():
                    if line.startswith("data: {"):
                        now = time.perf_counter()
                        found += [] if before is None else [now - before]
                        before = now
    return sorted(found)


def require_alike(before: list[float], meanwhile: list[float]) -> None:
    """Print the waits before and beside an attack; these are not far above those."""
    for name, share in (("median", 0.5), ("95 %", 0.95), ("99 %", 0.99)):
        was, now = before[int(share * len(before))], meanwhile[int(share * len(meanwhile))]
        print(f"gaps, {name}: {1e3 * was:.1f} ms before, {1e3 * now:.1f} ms beside")
        if share < 0.99:
            told = f"gaps, {name}: {1e3 * was:.1f} ms became {1e3 * now:.1f} ms"
            assert now < MOST_TIMES * was, told
