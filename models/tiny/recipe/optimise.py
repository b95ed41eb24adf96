"""How each parameter is updated: Muon for matrices, AdamW for others, a rule for router biases."""

from __future__ import annotations

import torch
from torch import Tensor

from recipe.muon import Muon
from recipe.shape import Shape
from recipe.weights import Weights

MATRIX_LR = 3e-3
PLAIN_LR = 3e-3  # embeddings, head, norms
ROUTER_LR = 3e-4  # ten times more saturates the sigmoids: all tokens then go to the same experts
INDEX_LR = 2e-3
WEIGHT_DECAY = 0.02
BIAS_RATE = 5e-3
NOT_MUON = ("embed_tokens", "lm_head", "router")


class Optimiser:
    """Updates the main model, its indexers, or both, at shares of their peak rates."""

    def __init__(self, weights: Weights, *, main: bool, index: bool) -> None:
        named = dict(weights.named_parameters())
        self._muon: Muon | None = None
        groups: list[dict[str, object]] = []
        if main:
            trained = {n: p for n, p in named.items() if not weights.is_index(n)}
            matrices = {n: p for n, p in trained.items() if p.ndim > 1 and not _plain(n)}
            routers = [p for n, p in trained.items() if n.endswith("router")]
            rest = [p for n, p in trained.items() if n not in matrices and "router" not in n]
            self._muon = Muon(matrices.values(), lr=MATRIX_LR, weight_decay=WEIGHT_DECAY)
            groups += [{"params": rest, "peak": PLAIN_LR, "index": False}]
            groups += [{"params": routers, "peak": ROUTER_LR, "index": False}]
        if index:
            indexers = [p for n, p in named.items() if weights.is_index(n)]
            groups += [{"params": indexers, "peak": INDEX_LR, "index": True}]
        for name, param in named.items():
            param.requires_grad_(index if weights.is_index(name) else main)
        fused = next(weights.parameters()).is_cuda
        self._adam = torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=0.0, fused=fused)

    def step(self, main_share: float, index_share: float) -> None:
        """Update at these shares of the peak rates, and drop the gradients."""
        for group in self._adam.param_groups:
            group["lr"] = group["peak"] * (index_share if group["index"] else main_share)
        self._adam.step()
        self._adam.zero_grad()
        if self._muon is not None:
            self._muon.lr = MATRIX_LR * main_share
            self._muon.step()
            self._muon.zero_grad()


def _plain(name: str) -> bool:
    return any(part in name for part in NOT_MUON)


@torch.no_grad()
def balance(s: Shape, weights: Weights, loads: list[Tensor], share: float) -> None:
    """Raise the selection bias of experts that get too few tokens, lower the others (no loss).

    Steps are proportional and centred: steps of one size rotate which experts win, and biases of
    all experts drift together.
    """
    mean = s.num_experts_per_tok / s.n_routed_experts
    layers = [layer for layer in weights.layers if not layer.dense]
    for layer, load in zip(layers, loads, strict=True):
        layer.router_bias += BIAS_RATE * share * ((mean - load) / mean).clamp(-1, 1)
        layer.router_bias -= layer.router_bias.mean()
