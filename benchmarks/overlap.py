"""What overlap and drafts give on a GPU: tokens a second, and where the device waits.

`python benchmarks/overlap.py ARTIFACT --checkpoint DIR --out FILE` runs the same greedy requests
with 0 and with the artifact's drafts, at depth 0 and 1, alone and together: their tokens must be
equal but where another batch gives other last bits. Then it profiles decode steps and lists the
device's idle time before a step, and between a body and its head.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Iterator
from datetime import date
from itertools import pairwise, product
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import torch
from torch.profiler import ProfilerActivity, profile

from lostwax.backends.runtime.load import Runtime, load
from lostwax.backends.runtime.ticket import StepTicket
from lostwax.ir.contract.captured import is_captured
from lostwax.ir.contract.program import Program
from lostwax.ir.contract.step_plan import StepPlan
from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.messages import Failed, Submit
from lostwax.server.engine.options import EngineOptions

PROMPT_TOKENS = 24
GRAPH_STEPS = 50
STEPS = 40
"""Decode steps that are profiled."""
Row = dict[str, Any]


def requests(runtime: Runtime, count: int, tokens: int) -> list[Submit]:
    """Greedy ones, of different prompts."""
    vocab = runtime.limits.vocab_size
    prompts = [[(17 * i + 131 * n + 3) % vocab for i in range(PROMPT_TOKENS)] for n in range(count)]
    return [
        Submit(request=f"r{n}", prompt=prompt, max_tokens=tokens, ignore_eos=True)
        for n, prompt in enumerate(prompts)
    ]


def run(core: EngineCore, submits: list[Submit]) -> tuple[float, dict[str, list[int]]]:
    """Seconds behind the first token of all, and the tokens."""
    tokens: dict[str, list[int]] = {each.request: [] for each in submits}
    for submit in submits:
        assert core.handle(submit) == []
    begin, given = 0.0, 0
    while core.has_work:
        if not begin and all(tokens.values()):
            begin = time.perf_counter()
            given = sum(map(len, tokens.values()))
        for event in core.step():
            assert not isinstance(event, Failed), event
            tokens[event.request] += [score.token for score in event.tokens]
    rate = (sum(map(len, tokens.values())) - given) / (time.perf_counter() - begin)
    return rate, tokens


def rates(runtime: Runtime, counts: list[int], tokens: int, rounds: int) -> Iterator[Row]:
    """Median tokens a second of each way, in interleaved rounds."""
    most = runtime.limits.max_drafts
    ways = [(drafts, depth) for drafts in sorted({0, most}) for depth in (0, 1)]
    for count in counts:
        submits = requests(runtime, count, tokens)
        seen: dict[tuple[int, int], list[float]] = {way: [] for way in ways}
        answers: dict[tuple[int, int], dict[str, list[int]]] = {}
        accepted: dict[tuple[int, int], float] = {}
        for way in ways * rounds:
            core = EngineCore(runtime, EngineOptions(way[0], prefix_cache=False), depth=way[1])
            rate, answers[way] = run(core, submits)
            core.scheduler.check_integrity()
            seen[way].append(rate)
            accepted[way] = core.drafting.num_accepted / max(core.drafting.num_drafted, 1)
        for way in ways:
            same = [answers[way][r.request] == answers[ways[0]][r.request] for r in submits]
            yield {
                "requests": count,
                "drafts": way[0],
                "depth": way[1],
                "tokens_per_s": round(median(seen[way]), 1),
                "accepted": round(accepted[way], 3),
                "equal_answers": f"{sum(same)}/{count}",
            }


def gaps(runtime: Runtime, count: int, depth: int) -> Row:
    """Median idle microseconds of the device before each step's first and head's first kernel."""
    core = EngineCore(runtime, EngineOptions(0, prefix_cache=False), depth=depth)
    for submit in requests(runtime, count, STEPS + 30):
        core.handle(submit)
    for _ in range(10):
        core.step()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        for _ in range(STEPS):
            core.step()
        torch.cuda.synchronize()
    profiled: Any = seen.events() or []  # torch does not say of what
    cuda = torch.autograd.DeviceType.CUDA  # pyright: ignore[reportPrivateImportUsage]
    events: list[tuple[float, float, str]] = sorted(
        (e.time_range.start, e.time_range.end, e.name) for e in profiled if e.device_type == cuda
    )
    idle: dict[str, list[float]] = {"derive": [], "derive_logits": []}
    busy, spans, copies = 0.0, list[float](), list[float]()
    last_end, last_step = 0.0, 0.0
    for start, end, name in events:
        if name in idle and last_end:
            idle[name].append(max(start - last_end, 0.0))
        if name == "derive":
            if last_step:
                spans.append(start - last_step)
            last_step = start
        if "emcpy" in name or "emset" in name:
            copies.append(end - start)
        busy += end - start
        last_end = max(last_end, end)
    between = idle_between(events)
    print(table(longest(events, STEPS)))
    return {
        "requests": count,
        "depth": depth,
        "step_us": round(median(spans), 1),
        "idle_before_step_us": round(median(idle["derive"]), 1),
        "idle_between_steps_us": round(median(between), 1),
        "body_to_head_us": round(median(idle["derive_logits"]), 1),
        "busy_share": round(busy / (events[-1][1] - events[0][0]), 3),
        "copy_us": round(median(copies), 1) if copies else 0.0,
    }


def idle_between(events: list[tuple[float, float, str]]) -> list[float]:
    """Idle time from the end of each head's last kernel to the next step's first."""
    found: list[float] = []
    idle, last_end, is_between = 0.0, 0.0, False
    for start, end, name in events:
        if is_between:
            idle += max(start - last_end, 0.0)
        if name == "derive" and is_between:
            found.append(idle)
            is_between = False
        if name == "advance":
            idle, is_between = 0.0, True
        last_end = max(last_end, end)
    return found


def one_graph(runtime: Runtime, count: int) -> Row:
    """Microseconds of a decode step's body and head as two graphs, and captured as one."""
    core = EngineCore(runtime, EngineOptions(0, prefix_cache=False))
    plans: list[StepPlan] = []
    submit = runtime.submit

    def noting(plan: StepPlan) -> StepTicket:
        plans.append(plan)
        return submit(plan)

    for request in requests(runtime, count, runtime.limits.max_context // 2):
        core.handle(request)
    with patch.object(runtime, "submit", noting):
        for _ in range(12):
            core.step()
    ((body, head),) = (tuple(map(runtime.bound, s)) for s in runtime.programs.pick(plans[-1]))
    torch.cuda.synchronize()
    with torch.inference_mode():
        whole = runtime.driver.capture([*body.launches, *head.launches])

    def two() -> None:
        body.replay()
        head.replay()

    seen: dict[str, list[float]] = {"two": [], "one": []}
    for _ in range(7):
        for name, replay in (("two", two), ("one", whole)):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            replay()
            begin.record()
            for _ in range(GRAPH_STEPS):
                replay()
            end.record()
            end.synchronize()
            seen[name].append(1e3 * begin.elapsed_time(end) / GRAPH_STEPS)
    assert runtime.device_step is not None
    runtime.device_step.reset()  # the replays took turns that no plan was sent for
    two_us, one_us = median(seen["two"]), median(seen["one"])
    return {
        "requests": count,
        "two_graphs_us": round(two_us, 1),
        "one_graph_us": round(one_us, 1),
        "ratio": round(two_us / one_us, 4),
    }


def longest(events: list[tuple[float, float, str]], steps: int) -> list[Row]:
    """Where the device idles most: pairs of kernels, with their microseconds a step."""
    found: dict[tuple[str, str], list[float]] = {}
    for before, behind in pairwise(events):
        pair = before[2][:40], behind[2][:40]
        found.setdefault(pair, []).append(max(behind[0] - before[1], 0.0))
    ranked = sorted(found.items(), key=lambda item: -sum(item[1]))[:8]
    return [
        {"from": a, "to": b, "times": len(seen), "us_a_step": round(sum(seen) / steps, 1)}
        for (a, b), seen in ranked
    ]


def _launches(program: Program) -> int:
    blocks = {name: len(launches) for name, launches in program.blocks.items()}
    around = len(program.prepare) + len(program.finish)
    return around + sum(blocks[call.block] for call in program.calls)


def table(rows: list[Row]) -> str:
    """The rows below their names."""
    lines = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    return "\n".join("  ".join(f"{cell:>20}" for cell in line) for line in lines)


def main() -> None:
    """Load, measure, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--requests", type=int, nargs="*", default=[1, 8])
    parser.add_argument("--tokens", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--gaps", type=int, nargs="*", default=[1, 8])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    begin = time.perf_counter()
    runtime = load(options.artifact, checkpoint=options.checkpoint)
    gc.collect()
    gc.freeze()  # as the engine's process does
    target = runtime.manifest.target
    programs = (runtime.bound(ref) for ref in runtime.manifest.programs)
    captured = [b.program for b in programs if is_captured(b.program, target)]
    report: dict[str, Any] = {
        "command": " ".join(["python", "benchmarks/overlap.py", *sys.argv[1:]]),
        "date": date.today().isoformat(),
        "machine": torch.cuda.get_device_name(),
        "load_s": round(time.perf_counter() - begin, 2),
        "graphs": len(captured),
        "launches_in_graphs": sum(map(_launches, captured)),
        "rates": list(rates(runtime, options.requests, options.tokens, options.rounds)),
    }
    print(table(report["rates"]))
    report["gaps"] = [gaps(runtime, n, depth) for n, depth in product(options.gaps, (0, 1))]
    print(table(report["gaps"]))
    report["one_graph"] = [one_graph(runtime, n) for n in options.gaps]
    print(table(report["one_graph"]))
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
