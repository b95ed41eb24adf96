"""Norms by CANN's operators; layer norm by torch's, which torch_npu gives to CANN."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from lostwax.backends.ascend.kernels.operators import calls, operator


@calls("npu_rms_norm")
def rms_norm(x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor, *, eps: float) -> None:
    """Write weight * x / sqrt(mean(x^2) + eps): [T, D], all of one dtype."""
    out.copy_(operator("npu_rms_norm")(x, weight, eps)[0])


@calls("npu_add_rms_norm")
def add_rms_norm(
    a: torch.Tensor,
    b: torch.Tensor,
    weight: torch.Tensor,
    residual: torch.Tensor | None,
    out: torch.Tensor,
    *,
    eps: float,
) -> None:
    """Write residual = a + b (if wanted), and out = the norm of the sum: [T, D], one dtype."""
    normed, _, total = operator("npu_add_rms_norm")(a, b, weight, eps)
    if residual is not None:
        residual.copy_(total)
    out.copy_(normed)


def layer_norm(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, out: torch.Tensor, *, eps: float
) -> None:
    """Write weight * (x - mean) / sqrt(var + eps) + bias: [T, D], in f32 inside."""
    out.copy_(F.layer_norm(x.float(), x.shape[-1:], weight.float(), bias.float(), eps))
