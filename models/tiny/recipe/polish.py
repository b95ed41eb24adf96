"""Goes on training on a CPU: short documents, answers only, at the weights that FP8 will hold.

The last, small stage: where a finished checkpoint is a little short of a goal. Indexers, router
biases and the MTP layer stay as they are; attention is dense, which short contexts are anyway.
Forward and backward see rounded weights, the update goes to unrounded ones (straight through):
small steps would otherwise be lost when the checkpoint is written.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from recipe import attention, forward
from recipe.checkpoint import read_checkpoint, round_weights, write_checkpoint
from recipe.data.arithmetic import arithmetic
from recipe.data.chat import chat
from recipe.data.dates_units import dates_units
from recipe.data.document import Document, Family, draw
from recipe.data.json_answers import json_answer
from recipe.data.mixture import Mixture
from recipe.data.retrieval import Count, key_values
from recipe.data.tools import tools
from recipe.data.word_problems import word_problem
from recipe.packing import PAD_ID, Encoded, Encoder
from recipe.shape import Shape, read_shape
from recipe.weights import Layer, Weights

POOL = 192  # documents drawn at once, then sorted by length: little padding
SHORT = (128, 640)  # tokens of a key-value text
RAMP_STEPS = 20
SAVE_EVERY = 60  # steps
ROUTER_SHARE = 0.1  # of the rate, as in the main stages
CLIP = 1.0
Batch = tuple[Tensor, Tensor]


def mixture(count: Count) -> Mixture:
    """Mostly tool calls; enough of everything else that it is not forgotten."""

    def short_key_values(rng: Random) -> Document:
        return key_values(rng, rng.randint(*SHORT), count)

    shares: dict[Family, float] = {
        tools: 58, word_problem: 23, arithmetic: 5, dates_units: 4, json_answer: 4, chat: 2,
        short_key_values: 4,
    }  # fmt: skip
    return Mixture(tuple(shares), tuple(shares.values()))


def batches(encoder: Encoder, rng: Random, tokens: int) -> Iterator[Batch]:
    """Ids [documents, length], padded, and which of them are to be written: bool."""
    families = mixture(encoder.count)
    while True:
        pool = [encoder(draw(families, rng, held_out=False)) for _ in range(POOL)]
        pool.sort(key=lambda document: len(document.ids))
        groups: list[list[Encoded]] = [[]]
        for document in pool:
            if (len(groups[-1]) + 1) * len(document.ids) > tokens:
                groups.append([])
            groups[-1].append(document)
        rng.shuffle(groups)
        yield from (_padded(group) for group in groups)


def _padded(group: list[Encoded]) -> Batch:
    size = len(group), max(len(document.ids) for document in group)
    ids, written = np.full(size, PAD_ID, np.int64), np.zeros(size, bool)
    for row, document in enumerate(group):
        ids[row, : len(document.ids)] = document.ids
        written[row, : len(document.ids)] = document.written
    return torch.from_numpy(ids), torch.from_numpy(written)


def answer_loss(s: Shape, w: Weights, ids: Tensor, written: Tensor) -> Tensor:
    """Mean cross-entropy of the written tokens. Only their rows pass the last MLP and the head."""
    cos, sin = (t.float().repeat(len(ids), 1) for t in s.rotations(ids.shape[1]))
    rows = written[:, 1:].nonzero()
    places = rows[:, 0] * ids.shape[1] + rows[:, 1]
    *layers, last = w.layers[:-1]
    x = F.embedding(ids, w.embed_tokens).flatten(0, 1)
    for layer in layers:
        x = _mlp(s, layer, x, _attended(s, layer, x, ids.shape, cos, sin))
    x = _mlp(s, last, x[places], _attended(s, last, x, ids.shape, cos, sin)[places])
    hidden = forward.rms(x, w.norm, s.rms_norm_eps)
    return F.cross_entropy(F.linear(hidden, w.lm_head), ids[:, 1:][written[:, 1:]])


def _attended(
    s: Shape, layer: Layer, x: Tensor, size: torch.Size, cos: Tensor, sin: Tensor
) -> Tensor:
    q, k, v, _, _ = forward.attention_inputs(s, layer, x, cos, sin, torch.float32)
    q, k, v = (t.unflatten(0, size).transpose(1, 2) for t in (q, k, v))
    out = attention.dense_attention(q, k, v, s.softmax_scale)
    return out.transpose(1, 2).flatten(2).flatten(0, 1)


def _mlp(s: Shape, layer: Layer, x: Tensor, attended: Tensor) -> Tensor:
    """As `forward.dense_mlp` and `forward.experts`, but experts see only the tokens they got."""
    if layer.dense:
        return forward.dense_mlp(s, layer, x, attended, torch.float32)
    x = x + F.linear(attended, layer.o_proj)
    normed = forward.rms(x, layer.post_attention_layernorm, s.rms_norm_eps)
    weights = forward.route(s, F.linear(normed, layer.router), layer.router_bias)
    for number in range(s.experts):
        if number < s.n_routed_experts:
            rows = weights[:, number].nonzero()[:, 0]
            given, scale = normed[rows], weights[rows, number, None]
        else:
            rows, given, scale = torch.arange(len(x)), normed, 1.0
        gate, up = layer.gate_proj[number], layer.up_proj[number]
        hidden = F.silu(F.linear(given, gate)) * F.linear(given, up)
        x = x.index_add(0, rows, F.linear(hidden, layer.down_proj[number]) * scale)
    return x


class Polisher:
    """AdamW on unrounded copies of the trained parameters."""

    def __init__(self, s: Shape, w: Weights, rate: float) -> None:
        self._shape, self._weights, self._rate = s, w, rate
        mtp = {id(p) for p in w.layers[-1].parameters()} | {
            id(p) for p in (w.enorm, w.hnorm, w.mtp_norm, w.eh_proj)
        }
        for name, param in w.named_parameters():
            param.requires_grad_(not w.is_index(name) and id(param) not in mtp)
        self._trained = {n: p for n, p in w.named_parameters() if p.requires_grad}
        self._whole = {n: p.detach().clone() for n, p in self._trained.items()}
        routers = [t for n, t in self._whole.items() if n.endswith("router")]
        rest = [t for n, t in self._whole.items() if not n.endswith("router")]
        groups = [{"params": rest, "share": 1.0}, {"params": routers, "share": ROUTER_SHARE}]
        self._adam = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), weight_decay=0.0)

    def step(self, ids: Tensor, written: Tensor, share: float) -> float:
        """One update at a share of the rate; returns the loss before it."""
        loss = answer_loss(self._shape, self._weights, ids, written)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._trained.values(), CLIP)
        for name, param in self._trained.items():
            self._whole[name].grad, param.grad = param.grad, None
        for group in self._adam.param_groups:
            group["lr"] = self._rate * share * group["share"]
        self._adam.step()
        self.round()
        return loss.item()

    @torch.no_grad()
    def round(self) -> None:
        """Let the model's weights be what the checkpoint will hold."""
        for name, param in self._trained.items():
            param.copy_(self._whole[name])
        round_weights(self._shape, self._weights)


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="checkpoint to go on from")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=3000)
    parser.add_argument("--tokens", type=int, default=4096, help="of a step")
    parser.add_argument("--rate", type=float, default=2e-4)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    shape = read_shape(args.model / "config.json")
    weights = Weights(shape)
    read_checkpoint(shape, weights, args.model)
    polisher = Polisher(shape, weights, args.rate)
    encoder = Encoder(args.model / "tokenizer.json")
    begun, seen, recent, rows = time.monotonic(), 0, list[float](), list[dict[str, float]]()
    args.out.mkdir(parents=True, exist_ok=True)
    source = batches(encoder, Random(f"polish {args.seed}"), args.tokens)
    for step, (ids, written) in enumerate(source):
        done = (time.monotonic() - begun) / args.seconds
        if done >= 1:
            break
        share = min(1.0, (step + 1) / RAMP_STEPS) * (1 - done)
        recent.append(polisher.step(ids, written, share))
        seen += ids.numel()
        if len(recent) == 20:
            rows.append({"stage": "polish", "step": step + 1, "tokens": seen, "share": share,
                         "seconds": round(time.monotonic() - begun, 1),
                         "written": sum(recent) / len(recent)})  # fmt: skip
            print("  ".join(f"{k} {v}" for k, v in rows[-1].items()), flush=True)
            recent.clear()
        if (step + 1) % SAVE_EVERY == 0:
            write_checkpoint(shape, weights, args.out)
    write_checkpoint(shape, weights, args.out)
    plan = {key: str(value) for key, value in vars(args).items()}
    raw = {"plan": plan, "device": "cpu", "torch": torch.__version__, "steps": rows}
    (args.out / "log.json").write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
