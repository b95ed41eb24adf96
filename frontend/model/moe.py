"""The feed-forward halves of a block: the dense MLP, and routed experts with a shared one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lostwax.frontend.config import ModelConfig
from lostwax.frontend.model.layers import ACT, Linear, parameter
from lostwax.frontend.ops import OPS


class Mlp(nn.Module):
    """down(silu(gate(y)) * up(y))."""

    def __init__(self, hidden: int, inter: int) -> None:
        super().__init__()
        self.gate_proj = Linear(hidden, inter)
        self.up_proj = Linear(hidden, inter)
        self.down_proj = Linear(inter, hidden)

    def forward(self, y: Tensor, dtype: torch.dtype = ACT) -> Tensor:
        """y: [T, D] -> [T, D] in `dtype`."""
        return self.down_proj(OPS.core_silu_mul(self.gate_proj(y), self.up_proj(y), ACT), dtype)


class Gate(nn.Module):
    """Router: logits in f32, and a bias that only the choice sees."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.weight = parameter(config.n_routed_experts, config.hidden_size)
        self.e_score_correction_bias = parameter(config.n_routed_experts, dtype=torch.float32)

    def forward(self, y: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """y: [T, D] -> expert ids and weights [T, K]."""
        logits = OPS.quant_linear(y, self.weight, torch.float32)
        return OPS.moe_route(
            logits, self.e_score_correction_bias, positions, self.config.num_experts_per_tok,
            self.config.n_group, self.config.topk_group, self.config.norm_topk_prob,
            self.config.routed_scaling_factor,
        )  # fmt: skip


class Stack(nn.Module):
    """One projection of all routed experts, [E, out, in]; a checkpoint has a tensor an expert."""

    def __init__(self, experts: int, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = parameter(experts, out_features, in_features)


class Experts(nn.Module):
    """The routed experts."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        experts, hidden, inter = (
            config.n_routed_experts, config.hidden_size, config.moe_intermediate_size,
        )  # fmt: skip
        self.gate_proj = Stack(experts, hidden, inter)
        self.up_proj = Stack(experts, hidden, inter)
        self.down_proj = Stack(experts, inter, hidden)

    def forward(self, y: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
        """y: [T, D] -> [T, D] f32."""
        return OPS.moe_experts(
            y, ids, weights, self.gate_proj.weight, self.up_proj.weight, self.down_proj.weight,
            torch.float32,
        )  # fmt: skip


class Moe(nn.Module):
    """Routed plus shared experts, summed in f32. The shared expert is not scaled."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate = Gate(config)
        self.experts = Experts(config)
        shared = config.moe_intermediate_size * config.n_shared_experts
        self.shared_experts = Mlp(config.hidden_size, shared)

    def forward(self, y: Tensor, positions: Tensor) -> Tensor:
        """y: [T, D] -> [T, D]."""
        ids, weights = self.gate(y, positions)
        routed = self.experts(y, ids, weights)
        return OPS.core_add(routed, self.shared_experts(y, torch.float32), ACT)
