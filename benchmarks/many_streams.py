"""What it gives to let many requests run at once: the same load with few running, and with all.

    python benchmarks/many_streams.py ARTIFACT --checkpoint models/tiny/weights --out FILE

64 prompts come at once, to an engine as it is served. For each bound of requests that run
(`--max-running-requests`): when first tokens come, and tokens a second over the whole load. The
bounds take turns, and each run says what other processes took of the machine meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from neighbours import Neighbours

from lostwax.backends.runtime.load import Runtime, load
from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.messages import Output, Submit
from lostwax.server.engine.options import SERVED

Clock = Callable[[], float]
"""Seconds."""


def at_once(
    runtime: Runtime, count: int, prompt: int, answer: int, running: int, clock: Clock
) -> dict[str, Any]:
    """`count` requests of `prompt` and `answer` tokens, `running` of them at once at most."""
    options = replace(SERVED, prefix_cache=False, max_running=running)
    core, neighbours = (
        EngineCore(runtime, options, depth=int(runtime.overlaps), clock=clock),
        Neighbours(),
    )
    vocab = runtime.limits.vocab_size
    for number in range(count):
        tokens = [(31 * i + 101 * number + 7) % vocab for i in range(prompt)]
        submit = Submit(request=str(number), prompt=tokens, max_tokens=answer, ignore_eos=True)
        core.handle(submit)
    began = clock()
    first: dict[str, float] = {}
    last = dict[str, float]()
    gaps, num_tokens = list[float](), 0
    while core.has_work:
        for event in core.step():
            assert isinstance(event, Output), event
            now, name = clock() - began, event.request
            num_tokens += len(event.tokens)
            if name in first:
                gaps.append(now - last[name])
            first.setdefault(name, now)
            last[name] = now
    seconds = clock() - began
    return {
        "running": running,
        "first_token_p50_s": round(statistics.median(first.values()), 2),
        "first_token_max_s": round(max(first.values()), 2),
        "gap_p50_ms": round(1e3 * statistics.median(gaps), 1),
        "tokens_per_s": round(num_tokens / seconds, 1),
        "seconds": round(seconds, 2),
        "others_share": neighbours.share(),
    }


def main() -> None:
    """Load, run each bound in turn, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--prompt", type=int, default=32)
    parser.add_argument("--answer", type=int, default=128)
    parser.add_argument("--running", type=int, nargs="*", default=[8, 64])
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--cpu-time", action="store_true", help="count processor time (1 thread)")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    clock = time.process_time if options.cpu_time else time.perf_counter
    runtime = load(options.artifact, checkpoint=options.checkpoint)
    for running in options.running:  # first steps of a program take longer
        at_once(runtime, options.requests, options.prompt, 2, running, clock)
    size = (options.requests, options.prompt, options.answer)
    rows = [at_once(runtime, *size, running, clock) for running in options.running * options.runs]
    for row in rows:
        print(row, flush=True)
    report = {
        "command": " ".join(["python", "benchmarks/many_streams.py", *sys.argv[1:]]),
        "seconds_of": "processor time" if options.cpu_time else "wall clock",
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "requests": options.requests,
        "prompt_tokens": options.prompt,
        "answer_tokens": options.answer,
        "runs": rows,
    }
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
