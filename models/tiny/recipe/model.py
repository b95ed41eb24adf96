"""Puts the pieces of the forward together: layers, MTP, how they attend. Trains nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from recipe import attention, forward
from recipe.shape import Shape
from recipe.weights import Layer, Weights

Mode = Literal["dense", "warm", "sparse", "random"]
"""How layers attend: to all; to all, with the indexer's loss; to the indexer's choice, with its
loss; to a random choice of as many (what a useless indexer would give)."""


@dataclass(frozen=True, slots=True)
class Pieces:
    """The functions that may be compiled, each once for all layers."""

    attention_inputs: Callable[..., Any] = forward.attention_inputs
    index_inputs: Callable[..., Any] = forward.index_inputs
    dense_mlp: Callable[..., Any] = forward.dense_mlp
    experts: Callable[..., Any] = forward.experts
    mtp_input: Callable[..., Any] = forward.mtp_input
    token_loss: Callable[..., Any] = forward.token_loss
    index_logits: Callable[..., Any] = attention.index_logits
    sparse_attention: Callable[..., Any] = attention.sparse_attention
    dense_index_loss: Callable[..., Any] = attention.dense_index_loss


def compiled_pieces() -> Pieces:
    """Each piece through `torch.compile`, for fixed shapes."""
    names = Pieces.__slots__
    return Pieces(*(torch.compile(getattr(Pieces(), name), dynamic=False) for name in names))


@dataclass(slots=True)
class Output:
    """What one pass gives. Hidden states are normed: [packs, length, hidden]."""

    hidden: Tensor
    drafted: Tensor
    loads: list[Tensor] = field(default_factory=list[Tensor])
    index_losses: list[Tensor] = field(default_factory=list[Tensor])
    recalls: list[Tensor] = field(default_factory=list[Tensor])
    """For each layer and query, the share of the dense attention that its selection holds."""


class Model:
    """The forward over packs of tokens."""

    def __init__(
        self, shape: Shape, weights: Weights, dtype: torch.dtype, pieces: Pieces | None = None
    ) -> None:
        self.shape, self.weights, self.dtype = shape, weights, dtype
        self.pieces = pieces or Pieces()
        self._rotations: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    def __call__(self, tokens: Tensor, mode: Mode, *, recall: bool = False) -> Output:
        """tokens: [packs, length]."""
        s, w = self.shape, self.weights
        embedded = F.embedding(tokens, w.embed_tokens)
        out = Output(embedded, embedded)
        x = embedded.flatten(0, 1)
        for layer in w.layers[:-1]:
            x = self._layer(layer, x, tokens.shape, mode, out, recall)
        hidden = forward.rms(x, w.norm, s.rms_norm_eps)
        following = embedded.roll(-1, 1).flatten(0, 1)
        norms = (w.enorm, w.hnorm)
        u = self.pieces.mtp_input(s, hidden, following, norms, w.eh_proj, self.dtype)
        drafted = self._layer(w.layers[-1], u, tokens.shape, mode, out, recall)
        out.hidden = hidden.unflatten(0, tokens.shape)
        out.drafted = forward.rms(drafted, w.mtp_norm, s.rms_norm_eps).unflatten(0, tokens.shape)
        return out

    def losses(self, out: Output, tokens: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Loss of the next token, of the one after it (MTP), and of completions alone.

        weights: [packs, length], how much each token counts as a target.
        """
        head, loss = self.weights.lm_head, self.pieces.token_loss

        def of(hidden: Tensor, shift: int) -> tuple[Tensor, Tensor]:
            counts = weights.roll(-shift, 1)
            counts[:, -shift:] = 0
            targets = tokens.roll(-shift, 1).flatten()
            return loss(hidden.flatten(0, 1), head, targets, counts.flatten(), self.dtype)

        following, written = of(out.hidden, 1)
        after, _ = of(out.drafted, 2)
        return following, after, written

    def logits(self, hidden: Tensor) -> Tensor:
        """Of normed hidden states."""
        return forward.project(hidden, self.weights.lm_head, self.dtype)

    def _layer(
        self, layer: Layer, x: Tensor, size: torch.Size, mode: Mode, out: Output, recall: bool
    ) -> Tensor:
        s, p = self.shape, self.pieces
        cos, sin = self._cos_sin(size, x)
        q, k, v, normed, latent = p.attention_inputs(s, layer, x, cos, sin, self.dtype)
        q, k, v = (t.unflatten(0, size).transpose(1, 2) for t in (q, k, v))
        if mode == "dense":
            attended = attention.dense_attention(q, k, v, s.softmax_scale)
        else:
            attended = self._indexed(
                layer, (q, k, v), (normed, latent, cos, sin), size, mode, out, recall
            )
        attended = attended.transpose(1, 2).flatten(2).flatten(0, 1)
        if layer.dense:
            return p.dense_mlp(s, layer, x, attended, self.dtype)
        x, load = p.experts(s, layer, x, attended, self.dtype)
        out.loads.append(load.detach())
        return x

    def _indexed(
        self, layer: Layer, qkv: tuple[Tensor, Tensor, Tensor], inputs: tuple[Tensor, ...],
        size: torch.Size, mode: Mode, out: Output, recall: bool,
    ) -> Tensor:  # fmt: skip
        """Attention of a mode that has an indexer (or its random stand-in)."""
        s, p, (q, k, v) = self.shape, self.pieces, qkv
        seen = attention.causal(size[1], q.device)
        normed, latent, cos, sin = inputs
        with torch.set_grad_enabled(torch.is_grad_enabled() or mode == "warm"):
            qi, ki, wi = p.index_inputs(s, layer, normed, latent, cos, sin, self.dtype)
            qi = qi.unflatten(0, size).transpose(1, 2)
            ki, wi = ki.unflatten(0, size), wi.unflatten(0, size)
            logits = p.index_logits(qi, ki, wi, seen)
            if mode == "warm":
                loss = p.dense_index_loss(q, k, logits, seen, s.softmax_scale)
                out.index_losses.append(loss)
                return attention.dense_attention(q, k, v, s.softmax_scale)
        if mode == "random":
            logits = torch.rand_like(logits).masked_fill(~seen, -torch.inf)
        selected = attention.select(logits, s.index_topk, seen)
        if recall:
            whole = attention.probabilities(q, k, seen[None], s.softmax_scale).mean(1)
            out.recalls.append((whole * selected).sum(-1))
        attended, loss = p.sparse_attention(q, k, v, logits, selected, s.softmax_scale)
        out.index_losses.append(loss)
        return attended

    def _cos_sin(self, size: torch.Size, like: Tensor) -> tuple[Tensor, Tensor]:
        key = (size[0], size[1])
        if key not in self._rotations:
            tables = self.shape.rotations(size[1])
            self._rotations[key] = tuple(t.to(like).repeat(size[0], 1) for t in tables)  # pyright: ignore
        return self._rotations[key]
