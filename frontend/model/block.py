"""A decoder layer as a map (delta, residual) -> (delta, residual), so that add and norm meet."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lostwax.frontend.config import Kind, ModelConfig
from lostwax.frontend.model.attention import Attention
from lostwax.frontend.model.indexer import Paging
from lostwax.frontend.model.layers import ACT, RMSNorm
from lostwax.frontend.model.moe import Mlp, Moe
from lostwax.frontend.ops import OPS


def add_norm(residual: Tensor, delta: Tensor, norm: RMSNorm) -> tuple[Tensor, Tensor]:
    """The normed sum and the sum itself. The norm reads the unrounded f32 sum, as officially."""
    total = OPS.core_add(residual, delta, torch.float32)
    rounded = OPS.core_cast(total, ACT)
    return norm(total), rounded


class Block(nn.Module):
    """Pre-norm attention, then pre-norm feed-forward; both additions happen at the next norm."""

    def __init__(self, config: ModelConfig, kind: Kind) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        dense = kind == "dense"
        self.mlp = Mlp(config.hidden_size, config.intermediate_size) if dense else Moe(config)

    def forward(
        self, delta: Tensor, residual: Tensor, positions: Tensor, slots: Tensor, q_starts: Tensor,
        page_table: Tensor, latent: Tensor, index_key: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """delta and residual: [T, D], as they leave."""
        paging = Paging(positions, slots, q_starts, page_table)
        x, residual = add_norm(residual, delta, self.input_layernorm)
        attended = self.self_attn(x, paging, latent, index_key)
        y, residual = add_norm(residual, attended, self.post_attention_layernorm)
        if isinstance(self.mlp, Moe):
            return self.mlp(y, positions), residual
        return self.mlp(y), residual
