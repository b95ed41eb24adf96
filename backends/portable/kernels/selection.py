"""Exact sets of positions: the k best of a row, or all visible. Knows nothing of programs."""

from __future__ import annotations

import torch

NEVER = float("-inf")


def topk(logits: torch.Tensor, out: torch.Tensor) -> None:
    """Write the k largest of each row [T, S] as positions ascending, then -1: out [T, k] i32.

    The lowest index wins ties; NaN and -inf are never chosen. `torch.topk` promises no order among
    equals, so it only gives the k-th value: what is above it is chosen, then equals from the left.
    """
    rows, columns = logits.shape
    wanted = min(out.shape[1], columns)
    values = torch.where(logits.isnan(), NEVER, logits)
    least = torch.topk(values, wanted, dim=-1, sorted=False).values.amin(-1, keepdim=True)
    above = values > least
    equal = (values == least) & (least > NEVER)
    room = wanted - above.sum(-1, keepdim=True, dtype=torch.int32)
    chosen = above | (equal & (equal.cumsum(-1, dtype=torch.int32) <= room))
    place = chosen.cumsum(-1, dtype=torch.int64).sub_(1)
    place.masked_fill_(~chosen, wanted)  # the spare last column takes what is not chosen
    names = torch.arange(columns, device=logits.device, dtype=torch.int32).expand(rows, -1)
    found = torch.full((rows, wanted + 1), -1, dtype=torch.int32, device=logits.device)
    out[:, wanted:].fill_(-1)
    out[:, :wanted].copy_(found.scatter_(1, place, names)[:, :wanted])


def every(positions: torch.Tensor, out: torch.Tensor) -> None:
    """Write 0..positions[t] of each row, then -1: out [T, k] i32."""
    index = torch.arange(out.shape[1], device=out.device, dtype=torch.int32)
    out.copy_(torch.where(index <= positions[:, None], index, -1))
