"""What each cache layout and indexer dtype costs in accuracy: one table, against fp32.

`python benchmarks/format_errors.py [CHECKPOINT [--text FILE]] [--out FILE]` compiles the checkpoint
(without one, a random one of examples/tiny.json) for the CPU once a combination, everything else in
fp32, and runs one prefill of the same tokens through each. Errors of logits are relative to the RMS
of the fp32 logits. A set's error is the share of its positions that fp32 did not select, over rows
that have more than index_topk positions to choose from: in the first layer, where the indexer reads
the same inputs in all runs, and in all layers.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import cast

import torch
from tokenizers import Tokenizer

from lostwax.backends.compile import CompileOptions, compile_module
from lostwax.backends.formats import Formats
from lostwax.backends.plan.cover import Forced
from lostwax.backends.plan.sizes import Sizes
from lostwax.backends.runtime.load import Runtime, load
from lostwax.backends.runtime.step_rows import StepRows
from lostwax.backends.runtime.tensors import tensor_of
from lostwax.frontend.capture import Captured, capture
from lostwax.frontend.checkpoint import open_checkpoint
from lostwax.frontend.new_checkpoint import new_checkpoint
from lostwax.ir.contract.program import Launch, Program, views_of
from lostwax.ir.contract.step_layout import STEP_OP
from lostwax.ir.contract.step_plan import StepPlan
from lostwax.ir.contract.step_state import Enter

CONFIG = Path(__file__).parents[1] / "examples" / "tiny.json"
LATENTS = {
    "fp32": Formats(kv="f32"),
    "bf16": Formats(kv="bf16"),
    "fp8_656": Formats(kv="fp8_656"),
    "fp8_656 ue8m0": Formats(kv="fp8_656", kv_scale="ue8m0"),
    "fp8_576": Formats(kv="fp8_576"),
}
INDEXERS = {
    "fp32": Formats(indexer="f32"),
    "bf16": Formats(indexer="bf16"),
    "fp8_fp32": Formats(indexer="fp8_fp32"),
    "fp8_ue8m0": Formats(indexer="fp8_ue8m0"),
    "fp8_ue8m0 row": Formats(indexer="fp8_ue8m0", index_pages="index_row"),
}
TOPK = Forced("dsa.topk", "portable_topk")
"""Unfused, so that every layer's selection is a value of its own."""


@dataclass(frozen=True)
class Outcome:
    """One run: logits [tokens, vocab], and the selection [tokens, k] of each layer."""

    logits: torch.Tensor
    selections: list[torch.Tensor]
    cache_bytes: int


def combined(latent: Formats, indexer: Formats) -> Formats:
    """Both choices."""
    return Formats(
        kv=latent.kv,
        kv_scale=latent.kv_scale,
        indexer=indexer.indexer,
        index_pages=indexer.index_pages,
    )


def prefill(tokens: list[int], page_tokens: int) -> StepPlan:
    """One request, every row scored, in pages 1, 2, …"""
    count = len(tokens)
    pages = tuple(range(1, 1 + -(-count // page_tokens)))
    return StepPlan(
        entry="extend",
        head="score",
        seqs=(1,),
        counts=(count,),
        ends=(count,),
        tokens=tuple(tokens),
        entering=(Enter(1, pages, 0, count, count),),
        logits=((0, count),),
        scored=((0, count),),
        targets=(*tokens[1:], 0),
    )


def _launches(program: Program) -> Iterator[Launch]:
    yield from program.prepare
    for call in program.calls:
        yield from program.blocks[call.block]
    yield from program.finish


def run(runtime: Runtime, tokens: list[int]) -> Outcome:
    """Replay the prefill launch by launch and keep what the table is about."""
    plan = prefill(tokens, runtime.limits.page_tokens)
    segments = [runtime.bound(ref) for ref in runtime.programs.pick(plan)[0]]
    head = segments[-1].program
    ids, shape = head.outputs["ids"], (head.bucket.rows, runtime.facts.vocab_size)
    arena, count = torch.from_numpy(runtime.memory.arena), len(tokens)
    selections: list[torch.Tensor] = []
    logits: torch.Tensor | None = None
    inputs = StepRows(plan, runtime.state, runtime.limits.page_tokens).inputs
    with torch.inference_mode():
        for bound in segments:
            bound.step.fill(inputs)
            for launch, thunk in zip(_launches(bound.program), bound.launches, strict=True):
                if launch.op.startswith(STEP_OP):  # they know of no plan
                    continue
                thunk()
                views = views_of(launch)
                if launch.op == TOPK.lowering:
                    selections.append(tensor_of(arena, views[-1])[:count].clone())
                if bound.program is head and ids in views:
                    wanted = next((v for v in views if v.shape == shape), None)
                    logits = logits if wanted is None else tensor_of(arena, wanted)[:count].clone()
    if logits is None or not selections:
        raise RuntimeError("the program shows no logits or no selection; were lowerings renamed?")
    planes = runtime.manifest.planes
    return Outcome(logits.double(), selections, sum(p.page_bytes // p.page_tokens for p in planes))


def set_error(got: torch.Tensor, want: torch.Tensor) -> float:
    """Mean share of selected positions that `want` does not have; rows that select all are out."""
    k = want.shape[1]
    rows = zip(_rows(got[k:]), _rows(want[k:]), strict=True)
    shares = [len(set(g) - set(w)) / k for g, w in rows]
    return sum(shares) / len(shares)


def _rows(selection: torch.Tensor) -> list[list[int]]:
    return cast("list[list[int]]", selection.tolist())  # torch types this in part only


def _tokens(checkpoint: Path, text: Path | None, count: int, vocab_size: int) -> list[int]:
    """The first tokens of a text, or random ones."""
    if text is None:
        rng = random.Random(0)
        return [rng.randrange(vocab_size) for _ in range(count)]
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    tokens = tokenizer.encode(text.read_text(encoding="utf-8"), add_special_tokens=False).ids
    if len(tokens) < count:
        raise SystemExit(f"{text} has {len(tokens)} tokens, wants {count}; see --tokens")
    return tokens[:count]


def measure(captured: Captured, checkpoint: Path, tokens: list[int]) -> list[dict[str, object]]:
    """Every combination's row; the first is fp32 and all others are compared with it."""
    rows: list[dict[str, object]] = []
    base: Outcome | None = None
    sizes = Sizes(
        max_context=len(tokens), max_tokens=len(tokens), max_reqs=1, max_score_rows=len(tokens)
    )
    for latent, kv in LATENTS.items():
        for indexer, index in INDEXERS.items():
            with tempfile.TemporaryDirectory() as folder:
                out = Path(folder) / "artifact"
                options = CompileOptions(
                    dtype="f32", formats=combined(kv, index), sizes=sizes, forced=(TOPK,)
                )
                parts = (captured.module, captured.facts, captured.weights)
                compile_module(*parts, "cpu", out, options)
                found = run(load(out, checkpoint=checkpoint), tokens)
            base = base or found
            error = (found.logits - base.logits) / base.logits.square().mean().sqrt()
            same = found.logits.argmax(-1) == base.logits.argmax(-1)
            sets = [set_error(*p) for p in zip(found.selections, base.selections, strict=True)]
            rows.append(
                {
                    "latent": latent,
                    "indexer": indexer,
                    "bytes": found.cache_bytes,
                    "logit_rms": float(error.square().mean().sqrt()),
                    "logit_max": float(error.abs().max()),
                    "argmax_differs": float(1 - same.double().mean()),
                    "set_first_layer": sets[0],
                    "set_all_layers": sum(sets) / len(sets),
                }
            )
            print(row_text(rows[-1]), flush=True)
    return rows


HEADER = (
    "| latent cache | indexer | bytes a token and layer | logits RMS | max | argmax differs"
    " | set, layer 0 | set, all layers |\n|---|---|---|---|---|---|---|---|"
)


def row_text(row: dict[str, object]) -> str:
    """One line of the table."""
    return (
        "| {latent} | {indexer} | {bytes} | {logit_rms:.1e} | {logit_max:.1e} |"
        " {argmax_differs:.1%} | {set_first_layer:.2%} | {set_all_layers:.2%} |"
    ).format(**row)


def main() -> None:
    """Measure, print a Markdown table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path, nargs="?")
    parser.add_argument("--text", type=Path)
    parser.add_argument("--tokens", type=int, default=320)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = options.checkpoint
        if checkpoint is None:
            checkpoint = Path(folder) / "checkpoint"
            new_checkpoint(CONFIG, checkpoint, seed=0, format="fp32")
        captured = capture(open_checkpoint(checkpoint))
        facts = captured.facts
        tokens = _tokens(checkpoint, options.text, options.tokens, facts.vocab_size)
        print(HEADER)
        rows = measure(captured, checkpoint, tokens)
    if options.out:
        about = {
            "date": str(date.today()),
            "machine": f"{platform.machine()}, torch {torch.__version__}",
            "model": captured.facts.name,
            "index_topk": captured.facts.index_topk,
            "tokens": options.tokens,
            "rows": rows,
        }
        options.out.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
