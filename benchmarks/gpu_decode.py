"""A decode step on a GPU: one graph replay beside the same launches walked, and its answers.

On any machine: `python benchmarks/gpu_decode.py expect CPU_ARTIFACT --out expected.json` writes
the greedy tokens of the CPU. On the GPU machine:
`python benchmarks/gpu_decode.py run ARTIFACT --checkpoint DIR --expected expected.json --out F`.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from generate import decode, greedy, prefill, start

from lostwax.backends.runtime.load import Runtime, load

LENGTHS = [7, 30, 48, 130, 200, 700, 1500]
NEW_TOKENS = 40
COMPILERS = ("triton", "torch._inductor", "torch._dynamo", "xdsl", "lostwax.frontend", "onnx")


def prompts(vocab_size: int) -> list[list[int]]:
    """Prompts below, at and far above a small index_topk."""
    rng = random.Random(0)
    return [[rng.randrange(2, vocab_size) for _ in range(n)] for n in LENGTHS]


def expect(options: argparse.Namespace) -> None:
    """Write the CPU's greedy tokens."""
    runtime = load(options.artifact, checkpoint=options.checkpoint)
    wanted = prompts(runtime.limits.vocab_size)
    tokens = [greedy(runtime, [p], NEW_TOKENS)[0] for p in wanted]
    options.out.write_text(json.dumps({"model": runtime.facts.digest, "tokens": tokens}))


def _median_us(run: Callable[[], None], repeats: int) -> tuple[float, float]:
    """Median and spread (10th to 90th percentile) of single runs by device events."""
    for _ in range(10):
        run()
    samples: list[float] = []
    for _ in range(repeats):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        run()
        end.record()
        end.synchronize()
        samples.append(begin.elapsed_time(end) * 1e3)
    cuts = statistics.quantiles(samples, n=10)
    return statistics.median(samples), cuts[-1] - cuts[0]


def _wall_us(run: Callable[[], object], repeats: int) -> float:
    samples: list[float] = []
    for _ in range(repeats):
        begin = time.perf_counter()
        run()
        samples.append((time.perf_counter() - begin) * 1e6)
    return statistics.median(samples)


def time_steps(runtime: Runtime, batch: int, context: int) -> dict[str, object]:
    """One decode step of `batch` requests at `context` tokens: graph, walked, whole step."""
    rng = random.Random(1)
    made = [[rng.randrange(2, runtime.limits.vocab_size) for _ in range(context)]] * batch
    sequences = start(runtime, made, 200)
    for seq in sequences:
        prefill(runtime, seq)
    name = decode(runtime, sequences).program
    ref = next(r for r in runtime.manifest.programs if Path(r.file).stem == name)
    program = runtime.bound(ref)

    def walk() -> None:
        for launch in program.launches:
            launch()

    wall_us = _wall_us(lambda: decode(runtime, sequences), 50)
    with torch.inference_mode():
        graph_us, graph_spread = _median_us(program.replay, 200)
        walked_us, walked_spread = _median_us(walk, 100)
    if runtime.device_step is not None:
        runtime.device_step.reset()  # the replays took turns that no plan was sent for
    return {
        "program": name,
        "batch": batch,
        "context": context,
        "launches": len(program.launches),
        "graph_us": round(graph_us, 1),
        "graph_spread_us": round(graph_spread, 1),
        "walked_us": round(walked_us, 1),
        "walked_spread_us": round(walked_spread, 1),
        "step_wall_us": round(wall_us, 1),
    }


def run(options: argparse.Namespace) -> int:
    """Load, compare tokens with the CPU's, time steps; 1 if tokens differ or a compiler loaded."""
    begin = time.perf_counter()
    runtime = load(options.artifact, checkpoint=options.checkpoint, num_pages=options.pages)
    loaded_s = time.perf_counter() - begin
    wanted = prompts(runtime.limits.vocab_size)
    expected = json.loads(options.expected.read_text())
    alone = [greedy(runtime, [p], NEW_TOKENS)[0] for p in wanted]
    together = greedy(runtime, wanted, NEW_TOKENS)
    loaded = [name for name in COMPILERS if name in sys.modules]
    report = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "artifact": runtime.manifest.digest,
        "model": runtime.facts.digest,
        "same_model": expected["model"] == runtime.facts.digest,
        "load_s": round(loaded_s, 2),
        "greedy_equal": alone == expected["tokens"],
        "greedy_equal_batched": together == expected["tokens"],
        "compilers_loaded": loaded,
        "steps": [time_steps(runtime, b, c) for b in (1, 4, 8) for c in (20, 300, 1500)],
    }
    options.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))
    good = report["same_model"] and report["greedy_equal"] and report["greedy_equal_batched"]
    return 0 if good and not loaded else 1


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", choices=("expect", "run"))
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--expected", type=Path)
    parser.add_argument("--pages", type=int)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    if options.mode == "expect":
        expect(options)
    else:
        raise SystemExit(run(options))


if __name__ == "__main__":
    main()
