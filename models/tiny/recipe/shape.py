"""The sizes of the model, read from its `config.json`, and YaRN's rotations. Knows no weight."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Shape:
    """Fields of the configuration by their own names."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    first_k_dense_replace: int
    intermediate_size: int
    moe_intermediate_size: int
    n_routed_experts: int
    n_shared_experts: int
    num_experts_per_tok: int
    n_group: int
    topk_group: int
    routed_scaling_factor: float
    num_attention_heads: int
    q_lora_rank: int
    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    index_n_heads: int
    index_head_dim: int
    index_topk: int
    rope_theta: float
    rope_scaling: dict[str, Any]
    rms_norm_eps: float

    @property
    def softmax_scale(self) -> float:
        """(nope + rope)^-0.5 times YaRN's mscale squared."""
        m = 0.1 * self.rope_scaling["mscale_all_dim"] * math.log(self.rope_scaling["factor"]) + 1
        return (self.qk_nope_head_dim + self.qk_rope_head_dim) ** -0.5 * m * m

    @property
    def index_scale(self) -> float:
        """What the indexer's head weights are multiplied by."""
        return (self.index_n_heads * self.index_head_dim) ** -0.5

    @property
    def experts(self) -> int:
        """Routed and shared ones: a wide shared expert is several side by side."""
        return self.n_routed_experts + self.n_shared_experts

    def rotations(self, length: int) -> tuple[Tensor, Tensor]:
        """cos, sin: [length, rope/2] in fp64, YaRN's blend of frequencies (arXiv:2309.00071)."""
        dim, scaling = self.qk_rope_head_dim, self.rope_scaling
        original, base = scaling["original_max_position_embeddings"], self.rope_theta

        def pair_that_turns(times: float) -> float:
            return dim * math.log(original / (times * 2 * math.pi)) / (2 * math.log(base))

        low = max(math.floor(pair_that_turns(scaling["beta_fast"])), 0)
        high = min(math.ceil(pair_that_turns(scaling["beta_slow"])), dim - 1)
        pairs = torch.arange(dim // 2, dtype=torch.float64)
        plain = base ** (-2 * pairs / dim)
        ramp = ((pairs - low) / max(high - low, 1e-3)).clamp(0, 1)
        frequencies = plain / scaling["factor"] * ramp + plain * (1 - ramp)
        angles = torch.arange(length, dtype=torch.float64)[:, None] * frequencies
        return angles.cos(), angles.sin()


def read_shape(path: Path) -> Shape:
    """The shape that a `config.json` describes."""
    raw = json.loads(path.read_text(encoding="utf-8"))
    return Shape(**{field.name: raw[field.name] for field in fields(Shape)})
