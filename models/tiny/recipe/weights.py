"""The trainable parameters, fp32, and how they are initialised. Knows no forward."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recipe.shape import Shape

GAIN = 0.6  # std times sqrt(fan_in)
OUTPUT_GAIN = 0.3  # output projections write into the residual: smaller still
EMBEDDING_STD = 0.5


def _matrix(*shape: int, gain: float = GAIN) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape) * gain * shape[-1] ** -0.5)


def _ones(size: int) -> nn.Parameter:
    return nn.Parameter(torch.ones(size))


class Layer(nn.Module):
    """One decoder layer; names are the official ones without their endings."""

    def __init__(self, s: Shape, *, dense: bool) -> None:
        super().__init__()
        h, heads, small = s.hidden_size, s.num_attention_heads, GAIN * OUTPUT_GAIN
        self.dense = dense
        self.input_layernorm, self.post_attention_layernorm = _ones(h), _ones(h)
        self.q_a_proj = _matrix(s.q_lora_rank, h)
        self.q_a_layernorm = _ones(s.q_lora_rank)
        self.q_b_proj = _matrix(heads * (s.qk_nope_head_dim + s.qk_rope_head_dim), s.q_lora_rank)
        self.kv_a_proj = _matrix(s.kv_lora_rank + s.qk_rope_head_dim, h)
        self.kv_a_layernorm = _ones(s.kv_lora_rank)
        self.kv_b_proj = _matrix(heads * (s.qk_nope_head_dim + s.v_head_dim), s.kv_lora_rank)
        self.o_proj = _matrix(h, heads * s.v_head_dim, gain=small)
        self.index_wq_b = _matrix(s.index_n_heads * s.index_head_dim, s.q_lora_rank)
        self.index_wk = _matrix(s.index_head_dim, h)
        self.index_k_norm = _ones(s.index_head_dim)
        self.index_k_bias = nn.Parameter(torch.zeros(s.index_head_dim))
        self.index_weights_proj = _matrix(s.index_n_heads, h)
        rows = (s.intermediate_size,) if dense else (s.experts, s.moe_intermediate_size)
        self.gate_proj, self.up_proj = _matrix(*rows, h), _matrix(*rows, h)
        self.down_proj = _matrix(*rows[:-1], h, rows[-1], gain=small)
        if not dense:
            self.router = _matrix(s.n_routed_experts, h)
            self.register_buffer("router_bias", torch.zeros(s.n_routed_experts))

    router_bias: Tensor

    def main_parameters(self) -> dict[str, nn.Parameter]:
        """All but the indexer's."""
        return {n: p for n, p in self.named_parameters() if not n.startswith("index_")}

    def index_parameters(self) -> dict[str, nn.Parameter]:
        """The indexer's: trained by its own loss only."""
        return {n: p for n, p in self.named_parameters() if n.startswith("index_")}


class Weights(nn.Module):
    """The whole model; the last layer is the MTP layer."""

    def __init__(self, s: Shape) -> None:
        super().__init__()
        h = s.hidden_size
        self.embed_tokens = nn.Parameter(torch.randn(s.vocab_size, h) * EMBEDDING_STD)
        self.lm_head = _matrix(s.vocab_size, h)
        self.norm, self.enorm, self.hnorm, self.mtp_norm = (_ones(h) for _ in range(4))
        self.eh_proj = _matrix(h, 2 * h)
        kinds = [n < s.first_k_dense_replace for n in range(s.num_hidden_layers)]
        self._layers = nn.ModuleList([Layer(s, dense=dense) for dense in (*kinds, False)])

    @property
    def layers(self) -> list[Layer]:
        """The main layers, then the MTP layer."""
        return list(self._layers)  # pyright: ignore[reportReturnType]  (all are Layer)

    def is_index(self, name: str) -> bool:
        """Whether a parameter belongs to an indexer."""
        return ".index_" in name
