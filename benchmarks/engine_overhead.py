"""What the engine itself costs a step: the same loop over the null target, which computes nothing.

`python benchmarks/engine_overhead.py --out FILE` compiles examples/tiny.json for `null` and drives
the engine's loop (schedule, build, pick, fill, walk of empty launches, commit) at several batches.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

from lostwax.backends.runtime.load import Runtime, load
from lostwax.backends.runtime.ticket import StepTicket
from lostwax.ir.contract.step import StepBatch
from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.messages import Submit

CONFIG = Path(__file__).parent.parent / "examples" / "tiny.json"
STEPS = 200


class Timed:
    """A runtime that notes how long each step took inside it."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.limits = runtime.limits
        self.facts = runtime.facts
        self.seconds: list[float] = []

    def submit(self, batch: StepBatch) -> StepTicket:
        """Submit and note; the null target's tickets are done at once."""
        begin = time.perf_counter()
        ticket = self._runtime.submit(batch)
        self.seconds.append(time.perf_counter() - begin)
        return ticket


def measure(runtime: Runtime, batch: int, context: int) -> dict[str, float | int]:
    """Median microseconds of a decode step: whole, and the engine's part of it."""
    timed = Timed(runtime)
    core = EngineCore(timed)
    for i in range(batch):
        prompt = [2] * context
        core.handle(Submit(request=f"r{i}", prompt=prompt, max_tokens=STEPS + 8, ignore_eos=True))
    core.step()
    while any(r.is_prefilling for r in core.scheduler.running) or core.scheduler.waiting:
        core.step()
    timed.seconds.clear()
    whole: list[float] = []
    for _ in range(STEPS):
        begin = time.perf_counter()
        core.step()
        whole.append(time.perf_counter() - begin)
    inside = [w - r for w, r in zip(whole, timed.seconds, strict=True)]
    return {
        "batch": batch,
        "context": context,
        "step_us": round(1e6 * statistics.median(whole), 1),
        "runtime_us": round(1e6 * statistics.median(timed.seconds), 1),
        "engine_us": round(1e6 * statistics.median(inside), 1),
    }


def main() -> None:
    """Compile, measure, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        checkpoint, artifact = Path(work, "checkpoint"), Path(work, "artifact")
        lostwax = [sys.executable, "-m", "lostwax"]
        make = ["new-checkpoint", "--config", str(CONFIG), "-o", str(checkpoint)]
        subprocess.run([*lostwax, *make], check=True)
        compiled = ["compile", str(checkpoint), "--target", "null", "-o", str(artifact)]
        subprocess.run([*lostwax, *compiled], check=True)
        runtime = load(artifact)
        rows = [measure(runtime, b, c) for b in (1, 4, 8) for c in (16, 1000)]
    report = {
        "command": " ".join(["python", "benchmarks/engine_overhead.py", *sys.argv[1:]]),
        "date": date.today().isoformat(),
        "machine": platform.machine(),
        "rows": rows,
    }
    print(json.dumps(report, indent=1))
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
