"""Multi-token prediction: one more decoder layer that sees the next token and the hidden before it.

Slot i of the layer's caches belongs to hidden h_i, token t_{i+1} and position i.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lostwax.frontend.config import ModelConfig
from lostwax.frontend.model.block import Block
from lostwax.frontend.model.layers import Linear, RMSNorm
from lostwax.frontend.ops import OPS


class Mtp(Block):
    """eh_proj [enorm(embed(t_{i+1})) ‖ hnorm(h_i)], a MoE layer, shared_head.norm.

    h_i is the hidden behind the final norm, and what comes out stands for h_{i+1} in the next
    draft (vLLM #47448: recycling the hidden before the norm lost acceptance).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config, "moe")
        hidden, eps = config.hidden_size, config.rms_norm_eps
        self.enorm = RMSNorm(hidden, eps)
        self.hnorm = RMSNorm(hidden, eps)
        self.eh_proj = Linear(2 * hidden, hidden)
        self.shared_head = nn.Module()
        self.shared_head.norm = RMSNorm(hidden, eps)

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]  (a block with one input more)
        self, delta: Tensor, hidden: Tensor, hidden_rows: Tensor, positions: Tensor, slots: Tensor,
        q_starts: Tensor, page_table: Tensor, latent: Tensor, index_key: Tensor,
    ) -> Tensor:  # fmt: skip
        """delta: embeddings [T, D]; hidden: [S, D], row t takes its hidden_rows[t] -> [T, D]."""
        before = OPS.core_gather_rows(hidden, hidden_rows)
        u = self.eh_proj(OPS.core_concat([self.enorm(delta), self.hnorm(before)]))
        delta, residual = super().forward(
            u, OPS.core_zeros_like(u), positions, slots, q_starts, page_table, latent, index_key
        )
        norm = self.get_submodule("shared_head.norm")
        assert isinstance(norm, RMSNorm)
        return norm(OPS.core_add(residual, delta, torch.float32))
