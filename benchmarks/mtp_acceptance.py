"""How many drafts of the MTP layer are accepted on held-out prompts: by task, for 1, 2, 3 drafts.

`python benchmarks/mtp_acceptance.py [CHECKPOINT] [--out FILE]` compiles a checkpoint (without one,
the tiny model) for the CPU with `--drafts 3` and lets the engine generate the answers greedily with
0 to 3 drafts; the counts are the engine's own. A length is the mean of tokens that a verifying step
gives: its accepted drafts and one of its own. Steps in which an answer ends are counted, too: what
was drafted behind the end is not accepted.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
from ask_artifact import (
    ANSWER_TOKENS,
    TINY,
    Share,
    compile_for_tasks,
    copy_checkpoint,
    prompts,
    tasks,
)
from tokenizers import Tokenizer

from lostwax.backends.formats import Formats
from lostwax.backends.runtime.load import Runtime, load
from lostwax.evals.task import Task
from lostwax.frontend.capture import capture
from lostwax.frontend.checkpoint import open_checkpoint
from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.messages import Failed, Submit
from lostwax.server.engine.options import EngineOptions

KINDS = ("arithmetic", "dates", "story_2", "story_4", "tools", "json", "chat", "kv", "needle")
MOST = 3


@dataclass(frozen=True, slots=True)
class Counts:
    """The engine's counts over one task."""

    tokens: int
    verified: int
    drafted: int
    accepted: int

    @property
    def length(self) -> float:
        """Tokens that a verifying step gives."""
        return 1 + self.accepted / max(self.verified, 1)

    def report(self) -> dict[str, Any]:
        """With the length and the share of drafts that were accepted."""
        return {
            "tokens": self.tokens,
            "verified_steps": self.verified,
            "drafted": self.drafted,
            "accepted": self.accepted,
            "length": round(self.length, 4),
            "accepted_share": round(self.accepted / max(self.drafted, 1), 4),
        }


def total(counts: Sequence[Counts]) -> Counts:
    """Counts of several tasks as one."""
    return Counts(*(sum(getattr(c, n) for c in counts) for n in Counts.__slots__))


def generate(
    runtime: Runtime, drafts: int, wanted: list[list[int]]
) -> tuple[dict[str, list[int]], Counts]:
    """Greedy tokens of each prompt, and what was counted on the way."""
    # Prompts share their shots: run whole, no answer depends on which came before.
    core = EngineCore(runtime, EngineOptions(drafts, prefix_cache=False))
    answers: dict[str, list[int]] = {}
    for number, prompt in enumerate(wanted):
        core.handle(Submit(request=str(number), prompt=prompt, max_tokens=ANSWER_TOKENS))
        answers[str(number)] = []
    while core.has_work:
        for event in core.step():
            if isinstance(event, Failed):
                raise RuntimeError(f"prompt {event.request} got no answer: {event.message}")
            answers[event.request] += [score.token for score in event.tokens]
    tokens = sum(map(len, answers.values()))
    return answers, Counts(
        tokens, core.drafting.num_verified, core.drafting.num_drafted, core.drafting.num_accepted
    )


def measure(runtime: Runtime, wanted: Sequence[Task], tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """A row a task, printed as it is known; the last is over all tasks."""
    rows: list[dict[str, Any]] = []
    whole: dict[int, list[Counts]] = {n: [] for n in range(1, MOST + 1)}
    print("| task (answers) | 1 draft | 2 drafts | 3 drafts | answers changed by drafting |")
    print("|---|---|---|---|---|")
    for task in wanted:
        encoded = [tokenizer.encode(p, add_special_tokens=False).ids for p in prompts(task)]
        plain, _ = generate(runtime, 0, encoded)
        row: dict[str, Any] = {"task": task.name, "answers": len(encoded), "changed": 0}
        for drafts, seen in whole.items():
            answers, counts = generate(runtime, drafts, encoded)
            seen.append(counts)
            row["changed"] += sum(answers[n] != plain[n] for n in plain)
            row[f"drafts_{drafts}"] = counts.report()
        rows.append(row)
        print(row_text(row), flush=True)
    answers, changed = (sum(row[n] for row in rows) for n in ("answers", "changed"))
    everything: dict[str, Any] = {"task": "all", "answers": answers, "changed": changed}
    everything |= {f"drafts_{n}": total(counts).report() for n, counts in whole.items()}
    print(row_text(everything))
    return [*rows, everything]


def row_text(row: dict[str, Any]) -> str:
    """Lengths, and the share of drafts that were accepted."""
    found = [row[f"drafts_{n}"] for n in range(1, MOST + 1)]
    cells = [f"{c['length']:.2f} ({100 * c['accepted_share']:.0f} %)" for c in found]
    asked = row["answers"] * MOST
    return (
        f"| {row['task']} ({row['answers']}) | {' | '.join(cells)} | {row['changed']} of {asked} |"
    )


def main() -> None:
    """Measure, print a Markdown table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path, nargs="?", default=TINY / "weights")
    parser.add_argument("--tasks", type=Path, default=TINY / "tasks")
    parser.add_argument("--examples", type=int, default=12, help="of a task, at most")
    parser.add_argument("--tokens", type=int, default=2048, help="of a task's prompts, about")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    begun = time.monotonic()
    share = Share(options.examples, options.tokens)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, out = Path(folder) / "checkpoint", Path(folder) / "artifact"
        digest = copy_checkpoint(options.checkpoint, checkpoint)
        tokenizer = checkpoint / "tokenizer.json"
        wanted = tasks(options.tasks, KINDS, share, tokenizer)
        captured = capture(open_checkpoint(checkpoint))
        formats = Formats(kv="f32", indexer="f32")
        compile_for_tasks(captured, checkpoint, out, "f32", formats, drafts=MOST)
        runtime = load(out, checkpoint=checkpoint, threads=1)
        rows = measure(runtime, wanted, Tokenizer.from_file(str(tokenizer)))
    seconds = time.monotonic() - begun
    print(f"{seconds:.0f} s")
    if options.out:
        about = {
            "command": " ".join(["python", "benchmarks/mtp_acceptance.py", *sys.argv[1:]]),
            "date": str(date.today()),
            "machine": f"{platform.machine()}, torch {torch.__version__}",
            "checkpoint": digest,
            "dtype": "fp32",
            "seconds": round(seconds, 1),
            "rows": rows,
        }
        options.out.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
