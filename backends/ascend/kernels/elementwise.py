"""What is one operator of torch, which torch_npu gives to CANN's operator of that meaning."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def add(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> None:
    """Write a + b, in the wider of their types inside."""
    out.copy_(torch.add(a, b))


def cast(x: torch.Tensor, out: torch.Tensor) -> None:
    """Write x in out's type."""
    out.copy_(x)


def concat(out: torch.Tensor, *parts: torch.Tensor) -> None:
    """Write the parts [T, D_i] side by side into out [T, sum of D_i]."""
    torch.cat(parts, dim=-1, out=out)


def zeros(x: torch.Tensor, out: torch.Tensor) -> None:
    """Write zeros, whatever x holds."""
    del x
    out.zero_()


def embed(table: torch.Tensor, rows: torch.Tensor, out: torch.Tensor) -> None:
    """Write table[rows[i]] into out[i]: table [V, D], rows i32 [n]; -1 (padding) takes row 0."""
    out.copy_(F.embedding(rows.clamp(min=0), table))


def take_rows(x: torch.Tensor, rows: torch.Tensor, out: torch.Tensor) -> None:
    """Write x[rows[i]] into out[i]: x [T, D], rows i32 [n]; -1 (padding) takes row 0."""
    out.copy_(torch.index_select(x, 0, rows.clamp(min=0)))
