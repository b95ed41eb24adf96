"""Whether a decode step costs what its real rows cost: 33 and 64 of them in one body of 64 rows.

`python benchmarks/full_width.py compile --out ART --max-reqs 64` compiles on any machine. On the
GPU machine `python benchmarks/real_rows.py ART --checkpoint DIR --out FILE` runs the same decode
step with either number of requests, in interleaved pairs, and prints the time of a step (from plan
to result) and of its body alone (one replay by device events) as ratios: below 1, fewer real rows
take less. Where DIR is not there, random weights are written to it.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
from full_width import write_weights
from generate import prefill, start, step_plan

from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.backends.runtime.load import Runtime, load
from lostwax.ir.contract.step import HIDDEN
from lostwax.ir.contract.step_plan import StepPlan

FEW, ALL = 33, 64
"""Requests: the least and the most that take the body of 64 rows."""

MOST_NEW = 8
"""Tokens that a request has room for behind its prompt."""


def decode_plans(runtime: Runtime, context: int) -> dict[int, StepPlan]:
    """The next decode step of the first requests, by their number. Every request has other tokens.

    A plan may be run again: it does not go on from what it gave.
    """
    rng = random.Random(0)
    vocab = runtime.limits.vocab_size
    prompts = [[rng.randrange(2, vocab) for _ in range(context)] for _ in range(ALL)]
    sequences = start(runtime, prompts, MOST_NEW)
    for sequence in sequences:
        prefill(runtime, sequence)
    return {n: step_plan([(s, 1) for s in sequences[:n]], "decode") for n in (FEW, ALL)}


def body_of(runtime: Runtime, plans: dict[int, StepPlan]) -> str:
    """The file of the one body that takes both steps."""
    found = {n: runtime.pick(plan)[0] for n, plan in plans.items()}
    few, every = found[FEW], found[ALL]
    if few != every or few.bucket.tokens != ALL:
        raise ValueError(
            f"{FEW} requests take {few.file} and {ALL} take {every.file}; compile with"
            f" --max-reqs {ALL}, so that both take one body of {ALL} rows"
        )
    return few.file


def _wall_us(run: Callable[[], object]) -> float:
    begin = time.perf_counter()
    run()
    return (time.perf_counter() - begin) * 1e6


def _device_us(run: Callable[[], None]) -> float:
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    run()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) * 1e3


def real_rows_equal(runtime: Runtime, plans: dict[int, StepPlan]) -> bool:
    """Whether the requests of both steps get the same bits: hidden rows, ids, log-probabilities."""
    rows = max(ref.bucket.tokens for ref in runtime.manifest.programs)
    hidden = runtime.memory.states[HIDDEN].view(rows, -1)
    found: list[tuple[torch.Tensor, list[int], list[float]]] = []
    for plan in plans.values():
        result = runtime.run(plan)
        found.append((hidden[:FEW].clone(), result.ids[:FEW], result.logprobs[:FEW]))
    few, every = found
    return torch.equal(few[0], every[0]) and few[1:] == every[1:]


def time_pairs(runtime: Runtime, plans: dict[int, StepPlan], pairs: int) -> dict[str, Any]:
    """Medians and spreads (10th to 90th percentile) in us, with the ratio of the medians."""
    body = runtime.bound(runtime.pick(plans[ALL])[0])
    step: dict[int, list[float]] = {n: [] for n in plans}
    replay: dict[int, list[float]] = {n: [] for n in plans}
    for pair in range(-5, pairs):  # the first ones warm up
        for count in sorted(plans, reverse=bool(pair % 2)):
            plan = plans[count]
            taken = _wall_us(lambda plan=plan: runtime.run(plan))
            with torch.inference_mode():  # the inputs of the step that just ran
                alone = _device_us(body.replay)
            if pair >= 0:
                step[count].append(taken)
                replay[count].append(alone)
    report: dict[str, Any] = {"pairs": pairs}
    for name, samples in (("step_wall", step), ("body_device", replay)):
        for count, times in samples.items():
            cuts = quantiles(times, n=10)
            report[f"{name}_us_{count}"] = round(median(times), 1)
            report[f"{name}_spread_us_{count}"] = round(cuts[-1] - cuts[0], 1)
        report[f"{name}_{FEW}_of_{ALL}"] = round(median(samples[FEW]) / median(samples[ALL]), 4)
    return report


def main() -> None:
    """Parse the command line, load, run both steps."""
    parser = argparse.ArgumentParser()
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--context", type=int, default=3000)
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    if not options.checkpoint.exists():
        write_weights(options.artifact, options.checkpoint)
        torch.cuda.empty_cache()
    page_tokens = ArtifactReader(options.artifact).manifest.limits.page_tokens
    pages = 1 + ALL * -(-(options.context + MOST_NEW) // page_tokens)
    runtime = load(options.artifact, checkpoint=options.checkpoint, num_pages=pages)
    plans = decode_plans(runtime, options.context)
    report = {
        "command": "python benchmarks/real_rows.py",
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "artifact": runtime.manifest.digest,
        "body": body_of(runtime, plans),
        "context": options.context,
        "real_rows_equal": real_rows_equal(runtime, plans),
        **time_pairs(runtime, plans, options.pairs),
    }
    options.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
