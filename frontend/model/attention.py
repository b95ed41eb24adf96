"""Multi-head latent attention with sparse selection. Says nothing of absorbed or expanded forms."""

from __future__ import annotations

from torch import Tensor, nn

from lostwax.frontend.config import LATENT_NORM_EPS, ModelConfig
from lostwax.frontend.model.indexer import Indexer, Paging
from lostwax.frontend.model.layers import Linear, RMSNorm, parameter, rotate
from lostwax.frontend.ops import OPS


class KvUp(nn.Module):
    """kv_b_proj: latent to per-head keys and values. `mla.attend` reads its weight itself."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        rows = config.num_attention_heads * (config.qk_nope_head_dim + config.v_head_dim)
        self.weight = parameter(rows, config.kv_lora_rank)


class Attention(nn.Module):
    """One latent c and one rotated key k_pe a token are cached; the norm covers c only."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        hidden, heads = config.hidden_size, config.num_attention_heads
        self.q_a_proj = Linear(hidden, config.q_lora_rank)
        self.q_a_layernorm = RMSNorm(config.q_lora_rank, LATENT_NORM_EPS)
        self.q_b_proj = Linear(config.q_lora_rank, heads * config.qk_head_dim)
        self.kv_a_proj_with_mqa = Linear(hidden, config.kv_lora_rank + config.qk_rope_head_dim)
        self.kv_a_layernorm = RMSNorm(config.kv_lora_rank, LATENT_NORM_EPS)
        self.indexer = Indexer(config)
        self.kv_b_proj = KvUp(config)
        self.o_proj = Linear(heads * config.v_head_dim, hidden)

    def forward(self, x: Tensor, paging: Paging, latent: Tensor, index_key: Tensor) -> Tensor:
        """x: [T, D] -> [T, D]; one row a token is written to both caches."""
        nope, rank = self.config.qk_nope_head_dim, self.config.kv_lora_rank
        qr = self.q_a_layernorm(self.q_a_proj(x))
        q = self.q_b_proj(qr).view(-1, self.config.num_attention_heads, self.config.qk_head_dim)
        q = self._rotate(q, paging, offset=nope)

        kv = self.kv_a_proj_with_mqa(x)
        c = self.kv_a_layernorm(kv[:, :rank])
        k_pe = self._rotate(kv[:, rank:], paging, offset=0)
        OPS.kv_append_(latent, [c, k_pe], paging.slots)

        selection = self.indexer(x, qr, paging, index_key)
        o = OPS.mla_attend(
            q[:, :, :nope], q[:, :, nope:], self.kv_b_proj.weight, latent, selection,
            paging.positions, paging.q_starts, paging.page_table, self.config.softmax_scale,
        )  # fmt: skip
        return self.o_proj(o)

    def _rotate(self, x: Tensor, paging: Paging, offset: int) -> Tensor:
        interleaved = self.config.rope_interleave
        return rotate(x, paging.positions, self.config.rope, offset=offset, interleaved=interleaved)
