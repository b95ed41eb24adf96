"""Whether a decode step costs what its real rows cost: 33 and 64 of them in one body of 64 rows.

`python benchmarks/full_width.py compile --out ART --max-reqs 64` compiles on any machine. On the
GPU machine `python benchmarks/real_rows.py ART --checkpoint DIR --out FILE` runs the same decode
steps with either number of requests, in interleaved pairs, and prints the time of a step alone
(from plan to result) and of one in a queue (by device events) as ratios: below 1, fewer real rows
take less. Where DIR is not there, random weights are written to it.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import msgspec
import torch
from full_width import write_weights
from generate import Sequence, prefill, start, step_plan

from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.backends.runtime.load import Runtime, load
from lostwax.backends.runtime.ticket import StepTicket
from lostwax.ir.contract.step import HIDDEN
from lostwax.ir.contract.step_plan import StepPlan
from lostwax.ir.contract.step_state import NO_TOKEN, Enter

FEW, ALL = 33, 64
"""Requests: the least and the most that take the body of 64 rows."""

QUEUED = 4
"""Steps of which one is timed, behind a first."""
WARM_UP = 5
"""Pairs that are not counted."""


def opened(runtime: Runtime, context: int, most_new: int) -> list[Sequence]:
    """Requests of `context` tokens each, all others, prefilled and with their first token."""
    rng = random.Random(0)
    vocab = runtime.limits.vocab_size
    prompts = [[rng.randrange(2, vocab) for _ in range(context)] for _ in range(ALL)]
    sequences = start(runtime, prompts, most_new)
    for sequence in sequences:
        prefill(runtime, sequence)
    return sequences


def decode_plan(sequences: list[Sequence]) -> StepPlan:
    """The next token of each."""
    return step_plan([(sequence, 1) for sequence in sequences], "decode")


def body_of(runtime: Runtime, sequences: list[Sequence]) -> str:
    """The file of the one body that takes a step of the first requests and of all."""
    few, every = (runtime.programs.pick(decode_plan(sequences[:n]))[0][0] for n in (FEW, ALL))
    if few != every or few.bucket.tokens != ALL:
        raise ValueError(
            f"{FEW} requests take {few.file} and {ALL} take {every.file}; compile with"
            f" --max-reqs {ALL}, so that both take one body of {ALL} rows"
        )
    return few.file


def real_rows_equal(runtime: Runtime, sequences: list[Sequence]) -> bool:
    """Whether the requests of both steps get the same bits: hidden rows, ids, log-probabilities.

    Every request enters anew, at the position that it has.
    """
    rows = max(ref.bucket.tokens for ref in runtime.manifest.programs)
    hidden = runtime.memory.states[HIDDEN].reshape(rows, -1)
    found: list[tuple[torch.Tensor, list[int], list[float]]] = []
    for count in (FEW, ALL):
        entering = tuple(
            Enter(s.seq, tuple(s.pages), s.cached, s.limit, s.cached, tokens=(s.tokens[s.cached],))
            for s in sequences
        )
        plan = msgspec.structs.replace(decode_plan(sequences[:count]), entering=entering)
        result = runtime.run(plan)
        found.append((hidden[:FEW].clone(), result.ids[:FEW], result.logprobs[:FEW]))
    _advance(sequences)
    few, every = found
    return torch.equal(few[0], every[0]) and few[1:] == every[1:]


def _advance(sequences: list[Sequence]) -> None:
    """Each has a token more; which one, the state knows."""
    for sequence in sequences:
        sequence.cached += 1
        sequence.tokens.append(NO_TOKEN)


def wall_us(runtime: Runtime, sequences: list[Sequence]) -> float:
    """One step from its plan to its result, with nothing else under way."""
    plan = decode_plan(sequences)
    begin = time.perf_counter()
    runtime.run(plan)
    taken = time.perf_counter() - begin
    _advance(sequences)
    return taken * 1e6


def queued_us(runtime: Runtime, sequences: list[Sequence]) -> float:
    """A step among others that were submitted before it had ended, by device events."""
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    tickets: list[StepTicket] = []
    for number in range(1 + QUEUED):
        tickets.append(runtime.submit(decode_plan(sequences)))
        _advance(sequences)
        if number == 0:
            begin.record()
    end.record()
    for ticket in tickets:
        ticket.result()
    end.synchronize()
    return begin.elapsed_time(end) * 1e3 / QUEUED


def time_pairs(runtime: Runtime, sequences: list[Sequence], pairs: int) -> dict[str, Any]:
    """Medians and spreads (10th to 90th percentile) in us, with the ratio of the medians."""
    ways = {"step_wall": wall_us, "step_queued": queued_us}
    report: dict[str, Any] = {"pairs": pairs}
    for name, measured in ways.items():
        samples: dict[int, list[float]] = {FEW: [], ALL: []}
        for pair in range(-WARM_UP, pairs):
            for count in (FEW, ALL) if pair % 2 else (ALL, FEW):
                taken = measured(runtime, sequences[:count])
                if pair >= 0:
                    samples[count].append(taken)
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
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    if not options.checkpoint.exists():
        write_weights(options.artifact, options.checkpoint)
        torch.cuda.empty_cache()
    most_new = 2 + 2 * (2 + QUEUED) * (options.pairs + WARM_UP)
    page_tokens = ArtifactReader(options.artifact).manifest.limits.page_tokens
    pages = 1 + ALL * -(-(options.context + most_new) // page_tokens)
    runtime = load(options.artifact, checkpoint=options.checkpoint, num_pages=pages)
    sequences = opened(runtime, options.context, most_new)
    body = body_of(runtime, sequences)
    equal = real_rows_equal(runtime, sequences)
    times = time_pairs(runtime, sequences, options.pairs)
    if body_of(runtime, sequences) != body:
        raise ValueError("the steps have outgrown the body that they began in; give fewer --pairs")
    report = {
        "command": " ".join(["python", "benchmarks/real_rows.py", *sys.argv[1:]]),
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "artifact": runtime.manifest.digest,
        "body": body,
        "context": options.context,
        "real_rows_equal": equal,
        **times,
    }
    options.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
