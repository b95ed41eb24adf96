"""Answers with the indexer's selection, with everything selected, and with a random indexer.

`python benchmarks/accuracy_by_selection.py [CHECKPOINT] [--out FILE]` makes two variants of the
checkpoint (default: the tiny model): one whose index_topk holds the longest context, so that all
programs attend densely, and one whose indexers have random weights. Each is compiled in fp32 and
generates the answers to the same held-out tasks, greedily and through the server.

For a device that this machine has not: compile here (`--target T --artifacts DIR --compile-only`)
and ask there (`--target T --artifacts DIR`).
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import torch
from ask_artifact import (
    SIZES,
    TINY,
    Samples,
    Share,
    ask,
    compile_for_tasks,
    copy_checkpoint,
    num_changed,
    share_right,
)
from ask_artifact import tasks as read_tasks
from safetensors.torch import (
    load_file,  # pyright: ignore[reportUnknownVariableType]
    save_file,  # pyright: ignore[reportUnknownVariableType]
)
from torch import Tensor

from lostwax.backends.formats import Formats
from lostwax.frontend.capture import capture
from lostwax.frontend.checkpoint import open_checkpoint

KINDS = ("tools", "json", "kv", "needle")
RANDOM = (".indexer.wq_b.weight", ".indexer.wk.weight", ".indexer.weights_proj.weight")
MODES = ("sparse", "dense", "random")


def make_dense(checkpoint: Path, out: Path) -> None:
    """A copy that selects everything."""
    shutil.copytree(checkpoint, out)
    path = out / "config.json"
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    config["index_topk"] = SIZES.max_context
    path.write_text(json.dumps(config, indent=2), encoding="utf-8")


def make_random(checkpoint: Path, out: Path) -> None:
    """A copy with normally distributed indexer weights of the size of the trained ones."""
    shutil.copytree(checkpoint, out)
    generator, replaced = torch.Generator().manual_seed(0), 0
    for file in sorted(out.glob("*.safetensors")):
        stored = load_file(file)
        for name, tensor in stored.items():
            if name.endswith(RANDOM):
                stored[name] = _random_like(tensor, generator)
                replaced += 1
        save_file(stored, file, {"format": "pt"})
    if not replaced:
        raise SystemExit(f"{checkpoint} has no tensor whose name ends with one of {RANDOM}")


def _random_like(tensor: Tensor, generator: torch.Generator) -> Tensor:
    """In the stored type: fp8 values keep their blocks' scales."""
    values = torch.randn(tensor.shape, generator=generator) * tensor.float().std()
    return values.clamp(-448, 448).to(tensor.dtype)  # the largest of fp8 e4m3


def make_variant(mode: str, checkpoint: Path, folder: Path) -> Path:
    """The checkpoint of a mode; sparse is the checkpoint itself."""
    if mode == "sparse":
        return checkpoint
    (make_dense if mode == "dense" else make_random)(checkpoint, folder / mode)
    return folder / mode


def compile_variant(variant: Path, out: Path, target: str) -> None:
    """Its artifact in fp32, caches included."""
    captured = capture(open_checkpoint(variant))
    formats = Formats(kv="f32", indexer="f32")
    compile_for_tasks(captured, variant, out, "f32", formats, target=target)


def report(found: dict[str, Samples]) -> list[dict[str, Any]]:
    """A row a task, and one over all answers."""
    rows: list[dict[str, Any]] = []
    base = found["sparse"]
    for task, samples in base.items():
        accuracy = {mode: share_right(found[mode][task]) for mode in MODES}
        changed = num_changed(found["dense"][task], samples)
        rows.append({"task": task, "answers": len(samples), **accuracy, "dense_differs": changed})
    asked = sum(row["answers"] for row in rows)
    mean = {m: sum(row[m] * row["answers"] for row in rows) / asked for m in MODES}
    differs = sum(row["dense_differs"] for row in rows)
    return [*rows, {"task": "all", "answers": asked, **mean, "dense_differs": differs}]


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown, in percent."""
    lines = ["| task (answers) | sparse | dense | random | dense differs from sparse |"]
    lines.append("|---|---|---|---|---|")
    for row in rows:
        cells = " | ".join(f"{100 * row[mode]:.1f}" for mode in MODES)
        lines.append(f"| {row['task']} ({row['answers']}) | {cells} | {row['dense_differs']} |")
    return "\n".join(lines)


def _device(target: str) -> str:
    return torch.cuda.get_device_name() if target.startswith("cuda") else platform.machine()


def main() -> None:
    """Measure, print a Markdown table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path, nargs="?", default=TINY / "weights")
    parser.add_argument("--tasks", type=Path, default=TINY / "tasks")
    parser.add_argument("--examples", type=int, default=32, help="of a task, at most")
    parser.add_argument("--tokens", type=int, default=16384, help="of a task's prompts, about")
    parser.add_argument("--target", default="cpu")
    parser.add_argument("--artifacts", type=Path, help="kept here; those that exist are used")
    parser.add_argument("--compile-only", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    begun, share = time.monotonic(), Share(options.examples, options.tokens)
    found: dict[str, Samples] = {}
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "checkpoint"
        digest = copy_checkpoint(options.checkpoint, checkpoint)
        for mode in MODES:
            variant = make_variant(mode, checkpoint, Path(folder))
            artifact = (options.artifacts or Path(folder)) / f"{mode}.artifact"
            if not artifact.exists():
                compile_variant(variant, artifact, options.target)
            if not options.compile_only:
                wanted = read_tasks(options.tasks, KINDS, share, checkpoint / "tokenizer.json")
                found[mode] = ask(artifact, variant, wanted)
            print(f"{mode}: {time.monotonic() - begun:.0f} s so far", file=sys.stderr)
    if options.compile_only:
        return
    rows = report(found)
    print(table(rows))
    if options.out:
        about = {
            "command": " ".join(["python", "benchmarks/accuracy_by_selection.py", *sys.argv[1:]]),
            "date": str(date.today()),
            "machine": f"{_device(options.target)}, torch {torch.__version__}",
            "checkpoint": digest,
            "dtype": "fp32",
            "seconds": round(time.monotonic() - begun, 1),
            "rows": rows,
        }
        options.out.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
