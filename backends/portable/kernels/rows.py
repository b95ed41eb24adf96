"""Rows chosen by number, -1 giving zeros; rows put side by side. Knows nothing of programs."""

from __future__ import annotations

import torch


def take_rows(table: torch.Tensor, rows: torch.Tensor, out: torch.Tensor) -> None:
    """Write table[rows[i]] into out[i], zeros where rows[i] is -1. table [V, D], rows [n]."""
    index = rows.clamp(min=0)
    if out.dtype == table.dtype:
        torch.index_select(table, 0, index, out=out)
    else:
        out.copy_(table.index_select(0, index))
    out.masked_fill_((rows < 0)[:, None], 0)


def concat(out: torch.Tensor, *parts: torch.Tensor) -> None:
    """Write the parts [T, D_i] side by side into out [T, sum of D_i]."""
    torch.cat(parts, dim=-1, out=out)
