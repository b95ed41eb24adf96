"""Rows chosen by number; rows put side by side. Knows nothing of programs."""

from __future__ import annotations

import torch


def take_rows(table: torch.Tensor, rows: torch.Tensor, out: torch.Tensor) -> None:
    """Write table[rows[i]] into out[i]. table [V, D], rows [n]; -1 (padding) takes row 0."""
    index = rows.clamp(min=0)
    if out.dtype == table.dtype:
        torch.index_select(table, 0, index, out=out)
    else:
        out.copy_(table.index_select(0, index))


def concat(out: torch.Tensor, *parts: torch.Tensor) -> None:
    """Write the parts [T, D_i] side by side into out [T, sum of D_i]."""
    torch.cat(parts, dim=-1, out=out)
