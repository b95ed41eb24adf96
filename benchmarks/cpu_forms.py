"""Native forms beside torch's, op by op: what a step takes where one op has another form.

    python benchmarks/cpu_forms.py CHECKPOINT [--dtype fp32] [--threads 2] [--at-once 14]
        [--out FILE]

Compiles the checkpoint for the CPU as it is planned, and once for each form that is no native one
and that `lostwax explain` names as the cheapest that lost, with `--lowering OP=FORM`. All are then
timed in turns, each in a process of its own: decode steps of one request and of eight, and a
prompt until its first token. A ratio is such a step's time over the planned one's, the median over
turns: above 1 the plan is right. Exits 1 where one is below 1 by more than NOISE.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

from cpu_decode import Process, in_turn

NATIVE = "cpu_native_"
PLANNED = "planned"
NOISE = 0.05
CONTEXT = 300
BATCHES = (1, 8)
TURNS = 7
STEPS = 8
OPTIONS = ("--target", "cpu", "--max-reqs", str(max(BATCHES)), "--max-context", "1024")


def lostwax(*arguments: str) -> str:
    """What `lostwax ...` prints. Raises CalledProcessError."""
    command = [sys.executable, "-m", "lostwax", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def rivals(artifact: Path) -> list[str]:
    """`OP=FORM` of the cheapest that lost, for each op that a native form covers alone or as the
    last of several."""
    best: dict[str, tuple[float, str]] = {}
    for choices in json.loads(lostwax("explain", str(artifact), "--json"))["programs"].values():
        for choice in choices:
            for loser in choice["losers"]:
                name, cost = loser["lowering"], loser["us"]
                if cost is None or name.startswith(NATIVE) or "cover" in loser["reason"]:
                    continue
                op = choice["ops"][-1]
                best[op] = min(best.get(op, (cost, name)), (cost, name))
    return [f"{op}={name}" for op, (_, name) in sorted(best.items())]


def compiled(checkpoint: Path, work: Path, options: list[str], forced: list[str]) -> str | None:
    """An artifact in `work`; a sentence where the op has no such form in some program."""
    more = [word for each in forced for word in ("--lowering", each)]
    name = forced[0] if forced else PLANNED
    try:
        lostwax("compile", str(checkpoint), *OPTIONS, *options, *more, "-o", str(work / name))
    except subprocess.CalledProcessError as error:
        return error.stderr.strip().splitlines()[-1]
    return None


def timed(processes: dict[str, Process], vocab: int) -> dict[str, dict[str, list[float]]]:
    """Seconds by workload and artifact, one a turn; the first turn warms up."""
    rng = random.Random(CONTEXT)
    prompts = [[rng.randrange(4, vocab) for _ in range(CONTEXT)] for _ in range(max(BATCHES))]
    times: dict[str, dict[str, list[float]]] = {}

    def took(workload: str, name: str, turn: int, seconds: float) -> None:
        if turn:
            times.setdefault(workload, {}).setdefault(name, []).append(seconds)

    for batch in BATCHES:
        for turn in range(TURNS + 1):
            for name in in_turn(list(processes), turn):
                process = processes[name]
                (seconds,) = process.ask("prefill", prompts=prompts[:batch])["seconds"]
                took(f"prefill of {batch} x {CONTEXT}", name, turn, seconds)
                steps = process.ask("steps", count=STEPS)["seconds"]
                took(f"decode of {batch}", name, turn, statistics.median(steps))
                process.ask("end")
    return times


def rows_of(times: dict[str, dict[str, list[float]]]) -> list[dict[str, Any]]:
    """A line for each form: its ratios by workload."""
    names = [name for name in next(iter(times.values())) if name != PLANNED]
    rows: list[dict[str, Any]] = []
    for name in names:
        op, _, form = name.partition("=")
        ratios = {
            workload: round(
                statistics.median(
                    theirs / planned
                    for theirs, planned in zip(found[name], found[PLANNED], strict=True)
                ),
                2,
            )
            for workload, found in times.items()
        }
        rows.append({"op": op, "form": form, **ratios})
    return rows


def main() -> None:
    """Compile, time, print; exit 1 where a form that lost was faster."""
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--dtype", default="bf16")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--at-once", type=int, default=1, help="compiles side by side")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    vocab = json.loads((options.checkpoint / "config.json").read_text())["vocab_size"]
    with tempfile.TemporaryDirectory() as folder:
        work, more = Path(folder), ["--dtype", options.dtype]
        refused = compiled(options.checkpoint, work, more, [])
        assert refused is None, refused
        names = rivals(work / PLANNED)

        def reason(name: str) -> str | None:
            return compiled(options.checkpoint, work, more, [name])

        with ThreadPoolExecutor(options.at_once) as pool:
            reasons = list(pool.map(reason, names))
        left_out = {n: why for n, why in zip(names, reasons, strict=True) if why is not None}
        processes = {
            name: Process("lostwax", work / name, options.checkpoint, options.threads)
            for name in (PLANNED, *names)
            if name not in left_out
        }
        times = timed(processes, vocab)
        for process in processes.values():
            process.close()
    rows = rows_of(times)
    report = {
        "command": " ".join(["python", "benchmarks/cpu_forms.py", *sys.argv[1:]]),
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores",
        "planned_ms": {w: round(1e3 * statistics.median(f[PLANNED]), 3) for w, f in times.items()},
        "rows": rows,
        "no program of its own": left_out,
    }
    text = json.dumps(report, indent=1) + "\n"
    print(text)
    if options.out:
        options.out.write_text(text)
    least = min(row[workload] for row in rows for workload in times)
    raise SystemExit(1 if least < 1 - NOISE else 0)


if __name__ == "__main__":
    main()
