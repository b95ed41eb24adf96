"""Norms over the last axis, in f32, on torch. Knows nothing of programs."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F


def _normed(x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor, eps: float) -> None:
    """x is f32. vector_norm and five small calls beat torch.rms_norm's seven on the CPU."""
    norm = cast("torch.Tensor", torch.linalg.vector_norm(x, dim=-1, keepdim=True))  # no stub
    norm.square_().mul_(1.0 / x.shape[-1]).add_(eps).rsqrt_()
    if out.dtype == torch.float32:
        torch.mul(x, norm, out=out)
        out.mul_(weight)
    else:
        torch.mul(x * norm, weight, out=out)


def rms_norm(x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor, *, eps: float) -> None:
    """Write weight * x / sqrt(mean(x^2) + eps): [..., D]."""
    _normed(x.float(), weight, out, eps)


def add_norm(
    a: torch.Tensor,
    b: torch.Tensor,
    weight: torch.Tensor,
    residual: torch.Tensor | None,
    out: torch.Tensor,
    *,
    eps: float,
) -> None:
    """Write residual = a + b rounded (if wanted), and out = the norm of the unrounded sum."""
    if residual is not None and residual.dtype == a.dtype == b.dtype == torch.float32:
        total = torch.add(a, b, out=residual)
    else:
        total = a.float() + b
        if residual is not None:
            residual.copy_(total)
    _normed(total, weight, out, eps)


def layer_norm(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, out: torch.Tensor, *, eps: float
) -> None:
    """Write weight * (x - mean) / sqrt(var + eps) + bias: [..., D]."""
    out.copy_(F.layer_norm(x.float(), x.shape[-1:], weight.float(), bias.float(), eps))
