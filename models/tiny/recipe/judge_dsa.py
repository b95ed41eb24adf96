"""Whether the sparse attention is real: accuracy and attention mass on tasks that need to select.

    PYTHONPATH=src:models/tiny python -m recipe.judge_dsa

Teacher-forced, by the trainer's own forward in fp32 (on a GPU: bf16), so that all layers may be
looked into. Three selections: the indexer's, everything, and as many positions at random. Masses
are shares of the attention that the same layer would give with everything selected, heads averaged:
of what the indexer selects, and of the best selection of that size. Queries are those that write an
answer and see more than index_topk positions.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from datetime import date
from pathlib import Path
from typing import Any

import torch

from recipe.checkpoint import read_checkpoint
from recipe.evaluate_teacher_forced import LONG, AttentionMass, evaluate, table
from recipe.held_out import held_out_documents
from recipe.model import Mode, Model, Pieces
from recipe.packing import Encoded, Encoder
from recipe.shape import read_shape
from recipe.weights import Weights
from recipe.write_tasks import HERE, SEED, set_names

MODES: tuple[Mode, ...] = ("sparse", "dense", "random")
Results = dict[str, dict[str, dict[str, Any]]]


def documents(encoder: Encoder, most: int, tokens: int) -> dict[str, list[Encoded]]:
    """Of each long set `most` documents, or as many as have `tokens` tokens; two at least."""
    sets: dict[str, list[Encoded]] = {}
    for name in set_names(encoder):
        if not name.startswith(LONG):
            continue
        length = int(name.partition("_")[2] or 1)
        count = max(min(most, tokens // length), 2)
        sets[name] = [encoder(d) for d in held_out_documents(encoder, name, count, SEED)]
    return sets


def judge(
    checkpoint: Path, sets: dict[str, list[Encoded]], *, device: str, tokens_a_pass: int
) -> Results:
    """A row for each mode and set."""
    shape = read_shape(checkpoint / "config.json")
    weights = Weights(shape)
    read_checkpoint(shape, weights, checkpoint)
    weights.to(device)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    mass = AttentionMass(shape.index_topk)
    watched = Model(shape, weights, dtype, Pieces(sparse_attention=mass))
    plain = Model(shape, weights, dtype)
    torch.manual_seed(SEED)  # of the random selection
    results: Results = {}
    for mode in MODES:
        begun = time.monotonic()
        model, noted = (watched, mass) if mode == "sparse" else (plain, None)
        results[mode] = evaluate(
            model, sets, mode, tokens_a_pass=tokens_a_pass, device=device, mass=noted
        )
        print(f"{mode}: {time.monotonic() - begun:.0f} s", flush=True)
    return results


def mass_table(rows: dict[str, dict[str, Any]]) -> str:
    """Selected and best possible share of attention in percent, layer by layer."""
    lines = ["set".ljust(14) + "attention mass selected / best possible, layers 0 …, MTP"]
    for name, row in rows.items():
        selected, best = (row.get(f"{n}_attention_mass") for n in ("selected", "best"))
        if selected is not None and best is not None:
            pairs = zip(selected, best, strict=True)
            cells = (f"{100 * s:.1f}/{100 * b:.1f}".rjust(12) for s, b in pairs)
            lines.append(name.ljust(14) + "".join(cells))
    return "\n".join(lines)


def main() -> None:
    """Judge, print the tables, write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=HERE / "weights")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--documents", type=int, default=12, help="of a set, at most")
    parser.add_argument("--tokens", type=int, default=6144, help="of a set, at most")
    parser.add_argument("--tokens-a-pass", type=int, default=4096)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    begun = time.monotonic()
    encoder = Encoder(args.checkpoint / "tokenizer.json")
    sets = documents(encoder, args.documents, args.tokens)
    results = judge(args.checkpoint, sets, device=args.device, tokens_a_pass=args.tokens_a_pass)
    print(table(results), mass_table(results["sparse"]), sep="\n\n")
    if args.out:
        device = torch.cuda.get_device_name() if args.device == "cuda" else platform.machine()
        about = {
            "command": f"python -m recipe.judge_dsa --documents {args.documents}"
            f" --tokens {args.tokens} --device {args.device}",
            "date": str(date.today()),
            "machine": f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}",
            "seconds": round(time.monotonic() - begun, 1),
            "results": results,
        }
        args.out.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
