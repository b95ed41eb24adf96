"""What the engine itself costs a step: the same loop over the null target, which computes nothing.

`python benchmarks/engine_overhead.py --out FILE` compiles examples/tiny.json for `null` and drives
the engine's loop (schedule, plan, pick, derive, fill, walk of empty launches, advance, commit) at
batches and contexts of many sizes. Prompts are not run: what a decode step costs does not ask how
the cache came to be. The prefix cache is on, as it is served: pages that fill meanwhile enter it.

Then the same with a queue: prompts wait that have the beginning of a running one's context and lack
room, while pages enter.
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
from collections.abc import Callable
from datetime import date
from itertools import product
from pathlib import Path
from typing import Any

import msgspec

from lostwax.backends.runtime.load import Runtime, load
from lostwax.backends.runtime.step_buffers import StepBuffers
from lostwax.backends.runtime.step_rows import StepRows
from lostwax.backends.runtime.ticket import StepTicket
from lostwax.ir.contract.step_plan import StepPlan
from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.messages import Submit
from lostwax.server.engine.options import SERVED
from lostwax.server.engine.waiting import LOOK_AHEAD

CONFIG = Path(__file__).parent.parent / "examples" / "tiny.json"
STEPS = 200
BATCHES = (1, 8, 64, 256)
CONTEXTS = (64, 1000, 150_000)
MAX_CONTEXT = 160_000
QUEUES = (100, 100_000)
"""Requests that wait."""
QUEUED_BATCHES = (1, 64)
QUEUED_CONTEXTS = (1000, 100_000)
Row = dict[str, float | int]


class Clock:
    """Seconds that a function took since the last `take`."""

    def __init__(self) -> None:
        self._seconds = 0.0

    def timing(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with its time added up here."""

        def timed(*args: Any, **named: Any) -> Any:
            begin = time.perf_counter()
            result = function(*args, **named)
            self._seconds += time.perf_counter() - begin
            return result

        return timed

    def take(self) -> float:
        """The seconds, which start from 0 again."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds


class ManyPages:
    """The runtime, which says that it has room for all requests, or for as many pages as are told:
    the null target touches none."""

    def __init__(self, runtime: Runtime, clock: Clock, num_pages: int | None = None) -> None:
        all_pages = max(BATCHES) * -(-MAX_CONTEXT // runtime.limits.page_tokens)
        pages = 1 + (num_pages or all_pages)
        self.limits = msgspec.structs.replace(runtime.limits, num_pages=pages)
        self.facts, self.overlaps = runtime.facts, runtime.overlaps
        self.pays_by_row = runtime.pays_by_row
        self.last_plan: StepPlan | None = None
        self._submit = clock.timing(runtime.submit)

    def submit(self, plan: StepPlan) -> StepTicket:
        """The null target's tickets are done at once."""
        self.last_plan = plan
        return self._submit(plan)


def measure(runtime: Runtime, derives: Clock, batch: int, context: int) -> Row:
    """Median microseconds of a decode step: whole, the engine's part, that of derive, fill and
    advance; bytes of its plan."""
    submits = Clock()
    many = ManyPages(runtime, submits)
    core = EngineCore(many, SERVED)
    _begin(core, batch, context)
    return _decode(core, many, submits, derives, batch, context)[0]


def measure_queued(runtime: Runtime, derives: Clock, batch: int, context: int, queue: int) -> Row:
    """The same while so many requests wait. Each has the context of the running ones, and more
    behind it than there is room for. `entering_us`: the median of steps in which a page entered the
    cache."""
    submits, size = Clock(), runtime.limits.page_tokens
    num_own = -(-(context + STEPS + 100) // size)
    many = ManyPages(runtime, submits, batch * (num_own + 2))
    core = EngineCore(many, SERVED)
    _begin(core, batch, context, stagger=True)
    length = min(MAX_CONTEXT, core.scheduler.max_context) - 10
    prompt = [2] * context + [3] * max(length - context, 1)
    for i in range(queue):
        its = prompt if i <= LOOK_AHEAD else prompt[:1]  # nobody looks at those behind
        core.handle(Submit(request=f"q{i}", prompt=its, max_tokens=5, ignore_eos=True))
    row, entering = _decode(core, many, submits, derives, batch, context)
    assert entering, "no page entered"
    return {"queue": queue} | row | {"entering_us": _microseconds(entering)}


def _begin(core: EngineCore, batch: int, context: int, *, stagger: bool = False) -> None:
    """Let so many requests run whose prompts have run but for the last token. `stagger`: each is a
    token shorter than the one before, so that their pages fill in turn."""
    for i in range(batch):
        prompt = [2] * (context - stagger * i)
        submit = Submit(request=f"r{i}", prompt=prompt, max_tokens=STEPS + 50, ignore_eos=True)
        core.handle(submit)
    for req in core.scheduler.waiting:
        req.num_cached = req.num_prompt - 1
    while core.scheduler.waiting or any(r.is_prefilling for r in core.scheduler.running):
        core.step()


def _decode(
    core: EngineCore, many: ManyPages, submits: Clock, derives: Clock, batch: int, context: int
) -> tuple[Row, list[float]]:
    """What steps take from now on, and the engine's seconds of those in which a page entered the
    cache."""
    whole, inside, derived = list[float](), list[float](), list[float]()
    entering, num_kept = list[float](), len(core.scheduler.pages.kept)
    for _ in range(STEPS):
        submits.take()
        derives.take()
        begin = time.perf_counter()
        core.step()
        whole.append(time.perf_counter() - begin)
        inside.append(whole[-1] - submits.take())
        derived.append(derives.take())
        num_before, num_kept = num_kept, len(core.scheduler.pages.kept)
        if num_kept > num_before:
            entering.append(inside[-1])
    row: Row = {
        "batch": batch,
        "context": context,
        "step_us": _microseconds(whole),
        "engine_us": _microseconds(inside),
        "derive_us": _microseconds(derived),
        "plan_bytes": len(msgspec.msgpack.encode(many.last_plan)),
    }
    return row, entering


def _microseconds(seconds: list[float]) -> float:
    return round(1e6 * statistics.median(seconds), 1)


def table(rows: list[Row]) -> str:
    """The rows below their names."""
    lines = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    return "\n".join("".join(f"{cell:>12}" for cell in line) for line in lines)


def main() -> None:
    """Compile, measure, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    derives = Clock()
    for owner, name in ((StepRows, "__init__"), (StepRows, "advance"), (StepBuffers, "fill")):
        setattr(owner, name, derives.timing(getattr(owner, name)))
    with tempfile.TemporaryDirectory() as work:
        checkpoint, artifact = Path(work, "checkpoint"), Path(work, "artifact")
        lostwax = [sys.executable, "-m", "lostwax"]
        make = ["new-checkpoint", "--config", str(CONFIG), "-o", str(checkpoint)]
        subprocess.run([*lostwax, *make], check=True)
        sizes = ["--max-context", str(MAX_CONTEXT), "--max-reqs", str(max(BATCHES))]
        compiled = ["compile", str(checkpoint), "--target", "null", "-o", str(artifact), *sizes]
        subprocess.run([*lostwax, *compiled], check=True)
        runtime = load(artifact, num_pages=2)
        rows = [measure(runtime, derives, b, c) for b in BATCHES for c in CONTEXTS]
        cases = product(QUEUED_BATCHES, QUEUED_CONTEXTS, QUEUES)
        queued = [measure_queued(runtime, derives, *case) for case in cases]
    report = {
        "command": " ".join(["python", "benchmarks/engine_overhead.py", *sys.argv[1:]]),
        "date": date.today().isoformat(),
        "machine": platform.machine(),
        "rows": rows,
        "queued": queued,
    }
    print(table(rows))
    print(table(queued))
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
