"""What each cache layout and indexer dtype costs in answers: one table, against fp32.

`python benchmarks/accuracy_by_layout.py [CHECKPOINT] [--out FILE]` compiles the checkpoint (without
one, the tiny model) for the CPU once a combination, everything else in --dtype, and lets each
artifact generate the answers to the same held-out tasks, greedily and through the server. It counts
answers whose text differs from that of fp32 caches and an fp32 indexer.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import date
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from ask_artifact import (
    TINY,
    Samples,
    Share,
    ask,
    compile_for_tasks,
    copy_checkpoint,
    num_changed,
    share_right,
    tasks,
)

from lostwax.backends.formats import Formats
from lostwax.frontend.capture import Captured, capture
from lostwax.frontend.checkpoint import open_checkpoint

KINDS = ("tools", "json", "story_2", "story_4", "kv", "needle")
LAYOUTS = {
    "bf16": Formats(kv="bf16"),
    "fp8_656": Formats(kv="fp8_656"),
    "fp8_656 ue8m0": Formats(kv="fp8_656", kv_scale="ue8m0"),
    "fp8_576": Formats(kv="fp8_576"),
}
INDEXERS = {"fp32": "f32", "bf16": "bf16", "fp8_fp32": "fp8_fp32", "fp8_ue8m0": "fp8_ue8m0"}
F32 = Formats(kv="f32", indexer="f32")
DTYPES = {"fp32": "f32", "bf16": "bf16"}


@dataclass(frozen=True, slots=True)
class Plan:
    """What every combination has in common."""

    checkpoint: Path
    tasks: Path
    dtype: str
    share: Share


@cache
def _captured(checkpoint: Path) -> Captured:
    return capture(open_checkpoint(checkpoint))


def combinations() -> dict[tuple[str, str], Formats]:
    """All that are compared, by their names; fp32 throughout is the first."""
    made = {("fp32", "fp32"): F32}
    for layout, kv in LAYOUTS.items():
        for name, indexer in INDEXERS.items():
            made[layout, name] = Formats(kv=kv.kv, kv_scale=kv.kv_scale, indexer=indexer)
    return made


def run(plan: Plan, formats: Formats) -> tuple[Samples, int, float]:
    """The answers of one combination, its cache bytes a token, and the seconds that they took."""
    torch.set_num_threads(1)  # as many combinations run as there are cores
    begun = time.monotonic()
    wanted = tasks(plan.tasks, KINDS, plan.share, plan.checkpoint / "tokenizer.json")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "artifact"
        captured = _captured(plan.checkpoint)
        size = compile_for_tasks(captured, plan.checkpoint, out, DTYPES[plan.dtype], formats)
        return ask(out, plan.checkpoint, wanted), size, time.monotonic() - begun


def row(layout: str, indexer: str, samples: Samples, base: Samples) -> dict[str, Any]:
    """Accuracy and changed answers by task, and over all."""
    accuracy = {name: share_right(found) for name, found in samples.items()}
    changed = {name: num_changed(found, base[name]) for name, found in samples.items()}
    counts = {name: len(found) for name, found in samples.items()}
    return {
        "layout": layout,
        "indexer": indexer,
        "accuracy": {name: round(share, 4) for name, share in accuracy.items()},
        "mean_accuracy": round(sum(accuracy.values()) / len(accuracy), 4),
        "changed": changed,
        "changed_share": round(sum(changed.values()) / sum(counts.values()), 4),
        "examples": counts,
    }


def header(counts: dict[str, int]) -> str:
    """The head of a Markdown table: tasks with their numbers of examples."""
    cells = ["latent cache", "indexer", "bytes a token", *(f"{n} ({c})" for n, c in counts.items())]
    cells += ["mean", "answers changed"]
    return f"| {' | '.join(cells)} |\n|{'---|' * len(cells)}"


def row_text(found: dict[str, Any]) -> str:
    """One line of the table, in percent."""
    cells = [found["layout"], found["indexer"], str(found["cache_bytes"])]
    cells += [f"{100 * share:.0f}" for share in found["accuracy"].values()]
    cells += [f"{100 * found['mean_accuracy']:.1f}"]
    total, asked = sum(found["changed"].values()), sum(found["examples"].values())
    return f"| {' | '.join([*cells, f'{total} of {asked}'])} |"


def measure(plan: Plan, jobs: int) -> list[dict[str, Any]]:
    """Every combination's row, printed in order; the first is fp32."""
    wanted = combinations()
    rows: list[dict[str, Any]] = []
    base: Samples | None = None
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        waiting = [pool.submit(run, plan, formats) for formats in wanted.values()]
        for pair, future in zip(wanted, waiting, strict=True):
            samples, size, seconds = future.result()
            if base is None:
                base = samples
                print(header({name: len(found) for name, found in base.items()}))
            about = {"cache_bytes": size, "seconds": round(seconds, 1)}
            rows.append(row(*pair, samples, base) | about)
            print(row_text(rows[-1]), flush=True)
    return rows


def main() -> None:
    """Measure, print a Markdown table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path, nargs="?", default=TINY / "weights")
    parser.add_argument("--tasks", type=Path, default=TINY / "tasks")
    parser.add_argument("--dtype", choices=DTYPES, default="fp32", help="of everything else")
    parser.add_argument("--examples", type=int, default=16, help="of a task, at most")
    parser.add_argument("--tokens", type=int, default=8192, help="of a task's prompts, about")
    parser.add_argument("--jobs", type=int, default=2, help="combinations at a time")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    share = Share(options.examples, options.tokens)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "checkpoint"
        digest = copy_checkpoint(options.checkpoint, checkpoint)
        plan = Plan(checkpoint, options.tasks, options.dtype, share)
        rows = measure(plan, options.jobs)
    seconds = time.monotonic() - begun
    print(f"{seconds:.0f} s")
    if options.out:
        about = {
            "command": " ".join(["python", "benchmarks/accuracy_by_layout.py", *sys.argv[1:]]),
            "date": str(date.today()),
            "machine": f"{platform.machine()}, {options.jobs} processes, torch {torch.__version__}",
            "checkpoint": digest,
            "dtype": options.dtype,
            "seconds": round(seconds, 1),
            "rows": rows,
        }
        options.out.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
