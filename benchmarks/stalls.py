"""What a long prompt costs answers that are under way, and what that costs its first token.

    python benchmarks/stalls.py ARTIFACT --checkpoint models/tiny/weights --out FILE

Two greedy streams run on an engine that has warmed up; then a prompt of 4,096 tokens comes, and
behind it another, as an engine may know more after the first. For each bound (`--max-stall`) and
prompt: the streams' longest wait for a token while the prompt runs, beside their median wait before
it came, and the prompt's time to its first token, beside that of the same prompt alone, in chunks
of the size that gives it soonest. With `--small N` a prompt of N tokens comes ten steps behind
each: its time to its first token is told, too. `longest_before_of_median` is what the machine does
to streams that nothing disturbs, and `longest_run_of_median` the longest wait without the time in
which the machine stopped one of its processors, as processes saw that do nothing but look
(`machine_gaps.py`). `none` has no bound: each prefill step is as large as any. Each is run several
times, in turn, and each run says what other processes took of the machine meanwhile.
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
from datetime import date
from pathlib import Path
from typing import Any

from loop_gaps import Gap
from machine_gaps import machine_gaps, ran_s
from neighbours import Neighbours

from lostwax.backends.runtime.load import Runtime, load
from lostwax.server.engine.extend_budget import MAX_STALL
from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.messages import Output, Submit
from lostwax.server.engine.options import EngineOptions

STREAMS = ("a", "b")
BEFORE = 96
"""Tokens of each stream before a prompt comes: what waits a machine has without one shows, too."""
PROMPTS = ("first", "second")
SMALL_BEHIND = 10
"""Steps between a prompt and a small one."""
NONE = "none"

Clock = Callable[[], float]
"""Seconds."""


def _submit(name: str, prompt: list[int], max_tokens: int) -> Submit:
    return Submit(request=name, prompt=prompt, max_tokens=max_tokens, ignore_eos=True)


def _prompt(runtime: Runtime, count: int) -> list[int]:
    return [(31 * i + 7) % runtime.limits.vocab_size for i in range(count)]


def alone(runtime: Runtime, rows: int, chunk: int, clock: Clock) -> float:
    """Seconds to the first token of a prompt that has the engine for itself, in chunks of so many
    rows at most."""
    options = EngineOptions(prefix_cache=False, max_extend_rows=chunk)
    core = EngineCore(runtime, options, depth=int(runtime.overlaps), clock=clock)
    prompt = _prompt(runtime, rows)
    begin = clock()
    core.handle(_submit("long", prompt, 1))
    while core.has_work:
        core.step()
    return clock() - begin


def beside(
    runtime: Runtime, rows: int, max_stall: float | None, clock: Clock, small: int = 0
) -> list[tuple[dict[str, Any], list[Gap], list[Gap]]]:
    """For each prompt its time to its first token, and that of a prompt of `small` tokens behind
    it, if there are any; the streams' waits before it and while it runs."""
    options = EngineOptions(prefix_cache=False, max_stall=max_stall)
    core = EngineCore(runtime, options, depth=int(runtime.overlaps), clock=clock)
    core.warm_up()
    for i, name in enumerate(STREAMS):
        core.handle(_submit(name, [5 + i] * 16, min(4000, runtime.limits.max_context - 20)))
    prompt = _prompt(runtime, rows)  # made before: its making would count as a wait
    last: dict[str, float] = dict.fromkeys(STREAMS, clock())
    found: list[tuple[dict[str, Any], list[Gap], list[Gap]]] = []
    for which in PROMPTS:
        neighbours, waits = Neighbours(), list[Gap]()
        num_before, came, first = 0, 0.0, 0.0
        num_steps, small_came, small_first = 0, 0.0, 0.0
        while not first or (small and not small_first):
            if not came and len(waits) >= BEFORE * len(STREAMS):
                num_before, came = len(waits), clock()
                core.handle(_submit(which, prompt, 1))
            num_steps += came > 0
            if small and num_steps == SMALL_BEHIND and not small_came:
                small_came = clock()
                core.handle(_submit(f"behind {which}", [3] * small, 1))
            for event in core.step():
                assert isinstance(event, Output), event
                now = clock()
                if event.request == which:
                    first = now - came
                elif event.request == f"behind {which}":
                    small_first = now - small_came
                else:
                    waits.append(Gap(now, now - last[event.request]))
                    last[event.request] = now
        about = {"max_stall": NONE if max_stall is None else max_stall, "prompt": which}
        shown = {"first_token_s": round(first, 3), "others_share": neighbours.share()}
        behind = {"small_first_token_s": round(small_first, 3)} if small else {}
        row = about | shown | behind
        found.append((row, waits[len(STREAMS) : num_before], waits[num_before:]))
    return found


def measured(
    runtime: Runtime, rows: int, max_stall: float | None, clock: Clock, small: int
) -> list[dict[str, Any]]:
    """The rows of `beside`, with what their waits come to."""
    with machine_gaps() as of_machine:
        found = beside(runtime, rows, max_stall, clock, small)
    return [row | _waits(before, while_it_ran, of_machine) for row, before, while_it_ran in found]


def _waits(before: list[Gap], meanwhile: list[Gap], of_machine: list[Gap]) -> dict[str, Any]:
    usual = statistics.median(gap.held_s for gap in before)
    waits = [gap.held_s for gap in meanwhile]
    in_order = sorted(waits)
    longest, p99 = in_order[-1], in_order[99 * (len(in_order) - 1) // 100]
    longest_run = max(ran_s(gap, of_machine) for gap in meanwhile)
    return {
        "median_before_ms": round(1e3 * usual, 2),
        "longest_ms": round(1e3 * longest, 2),
        "p99_ms": round(1e3 * p99, 2),
        "longest_of_median": round(longest / usual, 2),
        "longest_run_of_median": round(longest_run / usual, 2),
        "longest_before_of_median": round(max(gap.held_s for gap in before) / usual, 2),
        "p99_of_median": round(p99 / usual, 2),
        "longest_at": waits.index(longest),
        "tokens_meanwhile": len(meanwhile),
    }


def main() -> None:
    """Load, measure each bound in turn, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--max-stall", type=float, nargs="*", default=[2.0, MAX_STALL, 6.0])
    parser.add_argument("--chunks", type=int, nargs="*", default=[64, 256, 512])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--small", type=int, default=0, help="tokens of a prompt behind the long")
    parser.add_argument("--cpu-time", action="store_true", help="count processor time (1 thread)")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    clock = time.process_time if options.cpu_time else time.perf_counter
    runtime = load(options.artifact, checkpoint=options.checkpoint)
    threads = runtime.choose_threads()  # as `serve` does
    alone(runtime, options.rows, options.chunks[-1], clock)  # first steps of a program take longer
    beside(runtime, options.rows, options.max_stall[0], clock)
    chunks = {
        str(chunk): min(alone(runtime, options.rows, chunk, clock) for _ in range(options.runs))
        for chunk in options.chunks
    }
    lone = min(chunks.values())
    stalls = [*options.max_stall, None] * options.runs
    rows = [
        row
        for stall in stalls
        for row in measured(runtime, options.rows, stall, clock, options.small)
    ]
    for row in rows:
        row["first_token_of_lone"] = round(row["first_token_s"] / lone, 2)
        print(row, flush=True)
    report = {
        "command": " ".join(["python", "benchmarks/stalls.py", *sys.argv[1:]]),
        "seconds_of": "processor time" if options.cpu_time else "wall clock",
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "rows": options.rows,
        "threads": str(threads or "the host computes nothing"),
        "lone_first_token_s": {chunk: round(seconds, 3) for chunk, seconds in chunks.items()},
        "runs": rows,
    }
    print(f"alone: {lone:.3f} s to the first token")
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
