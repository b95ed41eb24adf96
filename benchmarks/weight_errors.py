"""What 8-bit weights cost in accuracy: one table, against fp32 with dequantised weights.

`python benchmarks/weight_errors.py [--tokens N] [--out FILE]` compiles the tiny model for the CPU
once a way to hold its weights and runs one prefill of the same tokens through each: questions and
answers of its arithmetic tasks. A row's logits are off by the RMS of their difference from fp32,
divided by the RMS of these.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from datetime import date
from pathlib import Path

import torch
from ask_artifact import TINY
from format_errors import TOPK, run
from tokenizers import Tokenizer

from lostwax.backends.compile import CompileOptions, compile_module
from lostwax.backends.plan.sizes import Sizes
from lostwax.backends.runtime.load import load
from lostwax.frontend.capture import Captured, capture
from lostwax.frontend.checkpoint import open_checkpoint

ARMS = {
    "fp32, dequantised": ("f32", "dequantised"),
    "fp32, e4m3 as stored": ("f32", "stored"),
    "fp32, int8": ("f32", "int8"),
    "bf16, e4m3 as stored": ("bf16", "stored"),
    "bf16, int8": ("bf16", "int8"),
}
"""By dtype and weights; the first is what the others are compared with."""
HEADER = (
    "| dtype, weights | mean negative log-likelihood | logits off, half of rows | nine of ten"
    " | same best token |\n| --- | --- | --- | --- | --- |"
)


def _tokens(count: int) -> list[int]:
    """The first tokens of questions and their answers. Raises ValueError where there are fewer."""
    lines = (TINY / "tasks" / "arithmetic.jsonl").read_text(encoding="utf-8").splitlines()
    examples = map(json.loads, lines)
    text = "\n".join(f"{e['messages'][0]['content']}\n{e['completion']}" for e in examples)
    tokenizer = Tokenizer.from_file(str(TINY / "weights" / "tokenizer.json"))
    tokens = tokenizer.encode(text, add_special_tokens=False).ids
    if len(tokens) < count:
        raise ValueError(f"the arithmetic tasks have {len(tokens)} tokens, wants {count}")
    return tokens[:count]


def logits_of(captured: Captured, arm: str, tokens: list[int]) -> torch.Tensor:
    """[tokens, vocab] f64 of an artifact that holds weights so."""
    count = len(tokens)
    sizes = Sizes(max_context=count, max_tokens=count, max_reqs=1, max_score_rows=count)
    dtype, weights = ARMS[arm]
    options = CompileOptions(dtype=dtype, weights=weights, sizes=sizes, forced=(TOPK,))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "artifact"
        compile_module(captured.module, captured.facts, captured.weights, "cpu", out, options)
        return run(load(out, checkpoint=TINY / "weights"), tokens).logits


def measured(got: torch.Tensor, want: torch.Tensor, tokens: list[int]) -> dict[str, float]:
    """A row of the table; rows' errors and best tokens as shares."""
    likely = got[:-1].log_softmax(-1)
    error = (got - want).square().mean(-1).sqrt() / want.square().mean(-1).sqrt()
    same = got.argmax(-1) == want.argmax(-1)
    return {
        "negative_log_likelihood": float(-likely[range(len(tokens) - 1), tokens[1:]].mean()),
        "off_half": float(error.quantile(0.5)),
        "off_nine_of_ten": float(error.quantile(0.9)),
        "same_best": float(same.double().mean()),
    }


def main() -> None:
    """Measure, print a Markdown table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=285)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    tokens = _tokens(options.tokens)
    captured = capture(open_checkpoint(TINY / "weights"))
    base: torch.Tensor | None = None
    rows: dict[str, dict[str, float]] = {}
    print(HEADER)
    for arm in ARMS:
        found = logits_of(captured, arm, tokens)
        base = found if base is None else base
        rows[arm] = measured(found, base, tokens)
        likely, half, most, same = rows[arm].values()
        print(f"| {arm} | {likely:.3f} | {half:.3%} | {most:.3%} | {same:.1%} |", flush=True)
    if options.out:
        about = {
            "date": str(date.today()),
            "machine": f"{platform.machine()}, torch {torch.__version__}",
            "tokens": options.tokens,
            "rows": rows,
        }
        options.out.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
