"""DeepSeek sparse attention's lightning indexer: which cached positions each row attends to."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lostwax.frontend.config import LATENT_NORM_EPS, ModelConfig
from lostwax.frontend.model.layers import LayerNorm, Linear, rotate
from lostwax.frontend.ops import OPS


@dataclass(frozen=True, slots=True)
class Paging:
    """Where rows stand and where their cached positions lie (step inputs)."""

    positions: Tensor
    slots: Tensor
    q_starts: Tensor
    page_table: Tensor


class Indexer(nn.Module):
    """I[t, s] = sum_h w[t, h] relu(q[t, h] . k[s]); the index_topk largest are selected.

    The rotated dimensions come first here and are half-split, unlike those of the attention.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads, self.dim, self.topk = (
            config.index_n_heads, config.index_head_dim, config.index_topk,
        )  # fmt: skip
        self.rope, self.interleaved = config.rope, config.indexer_rope_interleave
        self.scale = config.index_scale
        self.wq_b = Linear(config.q_lora_rank, self.heads * self.dim)
        self.wk = Linear(config.hidden_size, self.dim)
        self.k_norm = LayerNorm(self.dim, LATENT_NORM_EPS)
        self.weights_proj = Linear(config.hidden_size, self.heads)

    def forward(self, x: Tensor, qr: Tensor, paging: Paging, index_key: Tensor) -> Tensor:
        """x: [T, D], qr: [T, q_lora_rank] -> selected positions [T, index_topk]."""
        q = self._rotate(self.wq_b(qr).view(-1, self.heads, self.dim), paging)
        k = self._rotate(self.k_norm(self.wk(x)), paging)
        OPS.kv_append_(index_key, [k], paging.slots)
        w = self.weights_proj(x, torch.float32)
        logits = OPS.dsa_index_logits(
            q, w, index_key, paging.positions, paging.q_starts, paging.page_table, self.scale
        )
        return OPS.dsa_topk(logits, self.topk)

    def _rotate(self, x: Tensor, paging: Paging) -> Tensor:
        return rotate(x, paging.positions, self.rope, offset=0, interleaved=self.interleaved)
