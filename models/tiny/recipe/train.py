"""Trains the tiny model: dense, then its indexers, then sparse; evaluates and writes it.

Everything is budgeted by the clock: `--seconds` is the whole run, compilation included.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from recipe.checkpoint import read_checkpoint, round_weights, write_checkpoint
from recipe.evaluate_teacher_forced import LONG, evaluate, held_out, table
from recipe.model import Mode, Model, Pieces, compiled_pieces
from recipe.packing import Batch, Encoded, Encoder, Feed, Workers
from recipe.shape import Shape, read_shape
from recipe.stages import Log, run_stage
from recipe.weights import Weights

EVALUATION_SECONDS = 30.0  # at the end: rounding, three modes, writing
COMPILE_SECONDS = {"dense": 48.0, "warm": 26.0, "sparse": 15.0}  # allowed for, not measured here
STAGE_NAMES = ("dense", "warm", "sparse")
EVALUATION_SEED = 7


@dataclass(frozen=True, slots=True)
class Plan:
    """The arguments of a run."""

    model: Path
    out: Path
    gsm8k: Path | None
    resume: Path | None
    seconds: float
    shares: tuple[float, ...]
    rate: float
    device: str
    tokens: int
    length: int
    workers: int
    documents: int
    max_steps: int | None
    eager: bool
    seed: int


class Batches:
    """Packs of full length; in the dense stage two of three steps take half the length.

    Those steps are twice as large: long packs are needed for retrieval, short ones are cheaper.
    """

    def __init__(self, plan: Plan) -> None:
        context = multiprocessing.get_context("fork")  # before the device is initialised
        tokenizer, rows = plan.model / "tokenizer.json", plan.tokens // plan.length
        whole = Feed(tokenizer, plan.gsm8k, rows, plan.length, plan.seed)
        half = Feed(tokenizer, plan.gsm8k, 4 * rows, plan.length // 2, plan.seed)
        few = max(plan.workers // 3, 1)
        self._half = Workers(context, half, max(plan.workers - few, 1))
        self._whole = Workers(context, whole, few)

    def dense(self, step: int) -> Batch:
        """The batch of a step of the dense stage."""
        return self._whole.next() if step % 3 == 0 else self._half.next()

    def whole(self, step: int) -> Batch:
        """The batch of a step of the stages with an indexer."""
        return self._whole.next()

    def close(self) -> None:
        """End the processes."""
        self._half.close()
        self._whole.close()


def run(plan: Plan) -> None:
    """All stages, evaluation, files."""
    begun = time.monotonic()
    deadline = begun + plan.seconds - EVALUATION_SECONDS
    batches = Batches(plan)
    try:
        encoder, shape = (
            Encoder(plan.model / "tokenizer.json"),
            read_shape(plan.model / "config.json"),
        )
        sets = held_out(encoder, plan.documents, EVALUATION_SEED)
        model, evaluated = _models(plan, shape)
        log, results = Log(), dict[str, Any]()
        for number, name in enumerate(STAGE_NAMES):
            if not plan.shares[number]:
                continue
            seconds = _seconds(plan.shares[number:], STAGE_NAMES[number:], deadline)
            print(f"{name}: {seconds:.0f} s, {time.monotonic() - begun:.0f} s so far", flush=True)
            draw = batches.dense if name == "dense" else batches.whole
            run_stage(
                name, model, draw, seconds, log, peak=plan.rate if name == "dense" else 1.0,
                device=plan.device, until=deadline, max_steps=plan.max_steps,
            )  # fmt: skip
            mode: Mode = "dense" if name == "dense" else "sparse"
            results[f"after {name}"] = _evaluate(plan, evaluated, _every(sets, 4), mode)
            print(table({name: results[f"after {name}"]}), flush=True)
    finally:
        batches.close()
    print(f"writing after {time.monotonic() - begun:.0f} s", flush=True)
    write_checkpoint(shape, model.weights, plan.out)  # first of all: what follows may be cut off
    _write_log(plan, log, results, time.monotonic() - begun)
    round_weights(shape, model.weights)
    for mode in ("sparse", "dense", "random"):
        chosen = sets if mode != "random" else {n: d for n, d in sets.items() if n.startswith(LONG)}
        results[mode] = _evaluate(plan, evaluated, chosen, mode)
        _write_log(plan, log, results, time.monotonic() - begun)
    final = {mode: results[mode] for mode in ("sparse", "dense", "random")}
    print(table(final), table(final, "mtp_acceptance"), sep="\n\nMTP acceptance\n", flush=True)
    for name, row in results["sparse"].items():
        print(name, row.get("selected_attention_mass"))
    print(f"done after {time.monotonic() - begun:.0f} s", flush=True)


def _models(plan: Plan, shape: Shape) -> tuple[Model, Model]:
    """The trained model, and the same weights without compilation, for evaluation."""
    torch.manual_seed(plan.seed)
    torch._dynamo.config.cache_size_limit = 64
    weights = Weights(shape)
    if plan.resume is not None:
        read_checkpoint(shape, weights, plan.resume)
    weights.to(plan.device)
    dtype = torch.bfloat16 if plan.device == "cuda" else torch.float32
    pieces = Pieces() if plan.eager else compiled_pieces()
    return Model(shape, weights, dtype, pieces), Model(shape, weights, dtype)


def _seconds(shares: tuple[float, ...], names: tuple[str, ...], deadline: float) -> float:
    """Training time of the first of these stages: its share of what compilation leaves."""
    compiling = sum(COMPILE_SECONDS[n] for n, share in zip(names, shares, strict=True) if share)
    left = deadline - time.monotonic() - compiling
    return max(left, 1.0) * shares[0] / sum(shares)


def _every(sets: dict[str, list[Encoded]], step: int) -> dict[str, list[Encoded]]:
    return {name: documents[::step] for name, documents in sets.items()}


def _evaluate(plan: Plan, model: Model, sets: dict[str, list[Encoded]], mode: Mode) -> Any:
    return evaluate(model, sets, mode, tokens_a_pass=plan.tokens, device=plan.device)


def _write_log(plan: Plan, log: Log, results: dict[str, Any], seconds: float) -> None:
    name = torch.cuda.get_device_name() if plan.device == "cuda" else "cpu"
    given = {k: getattr(plan, k) for k in Plan.__slots__}
    shown = {k: v.name if isinstance(v, Path) else str(v) for k, v in given.items()}
    raw = {"plan": shown, "device": name,
           "torch": torch.__version__, "wall_seconds": round(seconds, 1), "results": results,
           "steps": log.rows}  # fmt: skip
    plan.out.mkdir(parents=True, exist_ok=True)
    (plan.out / "log.json").write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="config.json, tokenizer.json")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--gsm8k", type=Path, help="train.jsonl; without it no GSM8K is trained")
    parser.add_argument("--resume", type=Path, help="folder of a checkpoint to go on from")
    parser.add_argument("--seconds", type=float, default=550)
    parser.add_argument("--shares", default="0.66,0.18,0.16", help="of time: dense, warm, sparse")
    parser.add_argument("--rate", type=float, default=1.0, help="share of dense's peak rates")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tokens", type=int, default=32768, help="of a step")
    parser.add_argument("--length", type=int, default=4096, help="of a pack")
    parser.add_argument("--workers", type=int, default=14)
    parser.add_argument("--documents", type=int, default=96, help="of an evaluation set")
    parser.add_argument("--max-steps", type=int, help="of a stage, for trying the recipe out")
    parser.add_argument("--eager", action="store_true", help="compile nothing")
    parser.add_argument("--seed", type=int, default=0)
    args = vars(parser.parse_args())
    args["shares"] = tuple(float(share) for share in args["shares"].split(","))
    run(Plan(**args))


if __name__ == "__main__":
    main()
