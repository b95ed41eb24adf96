"""Logits of chosen rows on torch. This file would be backends/portable/kernels/gather_linear.py."""

import torch


def gather_linear(
    x: torch.Tensor, rows: torch.Tensor, weight: torch.Tensor, out: torch.Tensor
) -> None:
    """Write x[rows] W^T: x [T, K], rows i32 [R] (-1: zeros), weight [N, K], out [R, N]."""
    torch.mm(x.index_select(0, rows.clamp(min=0)), weight.t(), out=out)
    out.masked_fill_((rows < 0)[:, None], 0)
