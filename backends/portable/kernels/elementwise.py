"""Sums, casts and gated products on torch, written in place. Knows nothing of programs."""

from __future__ import annotations

import torch


def add(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> None:
    """Write a + b into out, summed in f32 unless all three share one dtype (torch rounds once)."""
    if a.dtype == b.dtype == out.dtype:
        torch.add(a, b, out=out)
    else:
        torch.add(a.float(), b, out=out)


def cast(x: torch.Tensor, out: torch.Tensor) -> None:
    """Write x rounded to out's dtype."""
    out.copy_(x)


def zeros_like(x: torch.Tensor, out: torch.Tensor) -> None:
    """Write zeros; x only gives the shape."""
    out.zero_()


def silu(x: torch.Tensor) -> torch.Tensor:
    """x / (1 + exp(-x)), f32. torch's own rounds an element by where it stands in the tensor."""
    return x / torch.exp(-x).add_(1)


def silu_mul(gate: torch.Tensor, up: torch.Tensor, out: torch.Tensor) -> None:
    """Write silu(gate) * up, computed in f32."""
    torch.mul(silu(gate.float()), up, out=out)
