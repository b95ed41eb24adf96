"""Decode on the CPU beside busy processes: how much of the quiet rate is left.

    python benchmarks/cpu_busy.py ARTIFACT --checkpoint DIR [--cores 0 1] [--out FILE]

The engine and loops that never wait share the given cores: none, one, or one a core, in turns, with
one thread and with as many as there are cores. `kept` is the quiet rate's part that stayed, the
median over turns; the least that the project promises is KEPT. A scheduler that shares evenly
leaves a half.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

from cpu_peer import Lostwax

KEPT = 0.4
CONTEXT = 300
TURN_STEPS = 200  # half a second, over which a scheduler's slices even out
TURNS = 5


@contextmanager
def busy(cores: list[int]) -> Generator[None]:
    """A loop on each of these cores, pinned there."""
    loop = "import os, sys\nos.sched_setaffinity(0, {int(sys.argv[1])})\nprint(flush=True)\n"
    command = [sys.executable, "-c", loop + "while True: pass"]
    loops = [subprocess.Popen([*command, str(core)], stdout=subprocess.PIPE) for core in cores]
    try:
        for each in loops:  # until it runs
            assert each.stdout is not None
            each.stdout.readline()
        yield
    finally:
        for each in loops:
            each.kill()
            each.wait()


def measure(artifact: Path, checkpoint: Path, threads: int, cores: list[int]) -> dict[str, Any]:
    """Steps a second of turns beside 0, 1, ... busy loops."""
    peer = Lostwax(artifact, checkpoint, threads)
    rates: dict[int, list[float]] = {count: [] for count in range(len(cores) + 1)}
    for turn in range(TURNS + 1):
        for count in rates:
            peer.prefill([[5 + i % 4000 for i in range(CONTEXT)]])
            with busy(cores[:count]):
                seconds, _ = peer.steps(TURN_STEPS)
            peer.end()
            if turn:
                rates[count].append(TURN_STEPS / sum(seconds))
    row: dict[str, Any] = {"threads": threads, "quiet_steps_per_s": round(_middle(rates[0]), 1)}
    for count in range(1, len(cores) + 1):
        kept = [b / q for b, q in zip(rates[count], rates[0], strict=True)]
        row[f"kept beside {count}"] = round(_middle(kept), 2)
    return row


def _middle(values: list[float]) -> float:
    return statistics.median(values)


def main() -> None:
    """Measure and print; exit 1 where less than KEPT of the rate stayed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--cores", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    os.sched_setaffinity(0, options.cores)
    counts = sorted({1, len(options.cores)})
    rows = [measure(options.artifact, options.checkpoint, n, options.cores) for n in counts]
    report = {
        "command": " ".join(["python", "benchmarks/cpu_busy.py", *sys.argv[1:]]),
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {len(options.cores)} cores",
        "context": CONTEXT,
        "rows": rows,
    }
    text = json.dumps(report, indent=1) + "\n"
    print(text)
    if options.out:
        options.out.write_text(text)
    kept = [value for row in rows for name, value in row.items() if name.startswith("kept")]
    raise SystemExit(1 if min(kept) < KEPT else 0)


if __name__ == "__main__":
    main()
