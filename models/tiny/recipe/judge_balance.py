"""What router biases alone decide: accuracy before and after they follow other loads.

    PYTHONPATH=src:models/tiny python -m recipe.judge_balance

No weight is trained. The router's logits for some packs are computed once; then the biases follow
the loads of those packs, as they would in a stage of `--steps` steps, and the same held-out
documents are judged again. Why biases stand still after the dense stage (`stages.py`).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor

from recipe import forward
from recipe.checkpoint import read_checkpoint
from recipe.evaluate_teacher_forced import evaluate, held_out, table
from recipe.model import Model, Pieces
from recipe.optimise import balance
from recipe.packing import Encoder, batches
from recipe.shape import Shape, read_shape
from recipe.stages import RAMP_STEPS
from recipe.weights import Layer, Weights
from recipe.write_tasks import HERE

SETS = ("arithmetic", "story_3")
SEED = 7


def router_logits(shape: Shape, weights: Weights, tokens: Tensor) -> list[Tensor]:
    """Of every MoE layer, the MTP layer last: [tokens, experts] each."""
    seen: list[Tensor] = []

    def watched(
        s: Shape, layer: Layer, x: Tensor, attended: Tensor, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        residual = x + forward.project(attended, layer.o_proj, dtype)
        normed = forward.rms(residual, layer.post_attention_layernorm, s.rms_norm_eps)
        seen.append(F.linear(normed, layer.router))
        return forward.experts(s, layer, x, attended, dtype)

    Model(shape, weights, torch.float32, Pieces(experts=watched))(tokens, "dense")
    return seen


def follow(shape: Shape, weights: Weights, logits: list[Tensor], steps: int) -> None:
    """Move the biases as a stage of so many steps does: ramped up, then falling to nothing."""
    layers = [layer for layer in weights.layers if not layer.dense]
    for step in range(steps):
        share = min(1.0, (step + 1) / RAMP_STEPS) * (1 - step / steps)
        chosen = [
            (forward.route(shape, routed, layer.router_bias) > 0).float().mean(0)
            for layer, routed in zip(layers, logits, strict=True)
        ]
        balance(shape, weights, chosen, share)


@torch.no_grad()
def main() -> None:
    """Read the arguments and print a column for each draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=HERE / "weights")
    parser.add_argument("--length", type=int, default=4096, help="of a pack")
    parser.add_argument("--packs", type=int, default=2)
    parser.add_argument("--draws", type=int, default=3, help="of packs, each from the same weights")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--documents", type=int, default=24, help="of an evaluation set")
    args = parser.parse_args()
    shape = read_shape(args.model / "config.json")
    weights = Weights(shape)
    read_checkpoint(shape, weights, args.model)
    encoder = Encoder(args.model / "tokenizer.json")
    every = held_out(encoder, args.documents, SEED)
    sets, model = {name: every[name] for name in SETS}, Model(shape, weights, torch.float32)
    results = {"before": evaluate(model, sets, "dense", tokens_a_pass=2048, device="cpu")}
    for draw in range(args.draws):
        read_checkpoint(shape, weights, args.model)
        tokens, _ = next(batches(encoder, Random(draw), args.packs, args.length, None))
        follow(shape, weights, router_logits(shape, weights, torch.from_numpy(tokens)), args.steps)
        after = evaluate(model, sets, "dense", tokens_a_pass=2048, device="cpu")
        results[f"after packs {draw}"] = after
    print(table(results))


if __name__ == "__main__":
    main()
