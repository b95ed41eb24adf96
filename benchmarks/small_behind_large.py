"""How long small requests wait behind a large one that lacks room, once a page for them is free.

    python benchmarks/small_behind_large.py ARTIFACT --checkpoint models/tiny/weights --out FILE

Requests hold all pages; a large one waits for most of them, and small ones come behind it. Then one
that runs is cancelled. For each small one: the steps, and the time, from then until it is admitted,
until its rows begin to run and until its first token; and when the large one had its own. How many
rows run in a step is bounded by what the answers under way may wait.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

from neighbours import Neighbours

from lostwax.backends.runtime.load import Runtime, load
from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.messages import Cancel, Output, Submit
from lostwax.server.engine.options import SERVED

HELD = 4
"""Pages of each request that runs when the others come."""
HOLDERS = 3
SMALL = 3
"""Small requests, of one page each."""


def _add(core: EngineCore, name: str, tokens: int, answer: int) -> None:
    first = sum(name.encode())  # prompts share no page
    prompt = [(31 * i + first) % 4000 for i in range(tokens)]
    core.handle(Submit(request=name, prompt=prompt, max_tokens=answer, ignore_eos=True))


def _fill(core: EngineCore, page: int, small: list[str]) -> None:
    """Let some hold all pages, of `page` tokens, and the others wait behind them."""
    scheduler = core.scheduler
    for number in range(HOLDERS):
        _add(core, f"holder {number}", (HELD - 1) * page + 1, page - 1)
    while scheduler.waiting or not all(req.is_decoding for req in scheduler.running):
        core.step()
    _add(core, "large", (HOLDERS - 1) * HELD * page - 4, 4)
    for name in small:
        _add(core, name, page // 2, 4)
    for _ in range(3):
        core.step()
    assert len(scheduler.running) == HOLDERS, "one has ended already"
    assert len(scheduler.waiting) == 1 + SMALL, "the others were to find no room"


def trial(runtime: Runtime) -> dict[str, Any]:
    """Fill the pool, let the others come, let one end."""
    core, neighbours = EngineCore(runtime, SERVED, depth=int(runtime.overlaps)), Neighbours()
    small = [f"small {number}" for number in range(SMALL)]
    _fill(core, runtime.limits.page_tokens, small)
    core.handle(Cancel("holder 0"))
    free_at, steps = time.perf_counter(), 0
    admitted, began = dict[str, int](), dict[str, int]()
    first: dict[str, tuple[int, float]] = {}
    while "large" not in first:
        events, steps = core.step(), steps + 1
        for name in small:
            req = core.scheduler.find(name)
            if req is None or req not in core.scheduler.waiting:
                admitted.setdefault(name, steps)
            if req is not None and req.has_begun:
                began.setdefault(name, steps)
        for event in events:
            assert isinstance(event, Output), event
            if event.tokens:
                first.setdefault(event.request, (steps, time.perf_counter() - free_at))
    while core.has_work:
        core.step()
    return {
        "steps_until_admitted": [admitted[name] for name in small],
        "steps_until_rows": [began[name] for name in small],
        "steps_until_token": [first[name][0] for name in small],
        "ms_until_token": [round(1e3 * first[name][1], 1) for name in small],
        "large_ms_until_token": round(1e3 * first["large"][1], 1),
        "others_share": neighbours.share(),
    }


def main() -> None:
    """Load with few pages, run, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    num_pages = 1 + HOLDERS * HELD  # one is the trash page
    runtime = load(options.artifact, checkpoint=options.checkpoint, num_pages=num_pages)
    trial(runtime)  # first steps of a program take longer
    rows = [trial(runtime) for _ in range(options.runs)]
    for row in rows:
        print(row, flush=True)
    report = {
        "command": " ".join(["python", "benchmarks/small_behind_large.py", *sys.argv[1:]]),
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "runs": rows,
    }
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
