"""Parameters with the op that reads them: linear, norms, rotary embedding. Holds no data."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lostwax.frontend.ops import OPS
from lostwax.frontend.rope import Rope

ACT = torch.bfloat16
"""Stands for the model's dtype; `assign-formats` decides what it becomes."""


def parameter(*shape: int, dtype: torch.dtype = ACT) -> nn.Parameter:
    """An uninitialised weight."""
    return nn.Parameter(torch.empty(shape, dtype=dtype), requires_grad=False)


class Linear(nn.Module):
    """y = x W^T, no bias anywhere in this model. x: [T, K] -> [T, N]."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = parameter(out_features, in_features)

    def forward(self, x: Tensor, dtype: torch.dtype = ACT) -> Tensor:
        """[T, K] -> [T, N] in `dtype`."""
        return OPS.quant_linear(x, self.weight, dtype)


class RMSNorm(nn.Module):
    """Over the last axis."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = parameter(width)
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """x: [T, width]."""
        return OPS.core_rms_norm(x, self.weight, self.eps, ACT)


class LayerNorm(nn.Module):
    """With bias, in f32: the indexer's k_norm, the one norm here that is no RMSNorm."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = parameter(width, dtype=torch.float32)
        self.bias = parameter(width, dtype=torch.float32)
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """x: [T, width]."""
        return OPS.core_layer_norm(x, self.weight, self.bias, self.eps, ACT)


def rotate(x: Tensor, positions: Tensor, rope: Rope, *, offset: int, interleaved: bool) -> Tensor:
    """Rotate `rope.dim` elements of the last axis from `offset`. x: [T, D] or [T, H, D]."""
    return OPS.core_rope(
        x, positions, offset, rope.dim, interleaved, rope.theta, rope.factor, rope.original_len,
        rope.beta_fast, rope.beta_slow, rope.magnitude,
    )  # fmt: skip
