"""Exact sets of positions: the k best of a row, or all visible. Knows nothing of programs."""

from __future__ import annotations

import torch

NEVER = float("-inf")


SORTED_ELEMENTS = 16384
"""Below this a stable sort's few calls beat the counting of equals (one row of 320: 5 us)."""


def topk(logits: torch.Tensor, out: torch.Tensor) -> None:
    """Write the k largest of each row [T, S] as positions ascending, then -1: out [T, k] i32.

    The lowest index wins ties; NaN and -inf are never chosen.
    """
    wanted = min(out.shape[1], logits.shape[1])
    values = torch.where(logits.isnan(), NEVER, logits)
    found = out[:, :wanted]
    if logits.numel() <= SORTED_ELEMENTS:
        _by_sorting(values, found)
    else:
        _by_counting(values, found)
    out[:, wanted:].fill_(-1)


def _by_sorting(values: torch.Tensor, out: torch.Tensor) -> None:
    wanted, columns = out.shape[1], values.shape[1]
    ordered, index = torch.sort(values, dim=-1, descending=True, stable=True)
    chosen = index[:, :wanted].masked_fill(ordered[:, :wanted] == NEVER, columns).sort(-1).values
    out.copy_(chosen.masked_fill_(chosen == columns, -1))


def _by_counting(values: torch.Tensor, out: torch.Tensor) -> None:
    """torch.topk promises no order among equals, so it only gives the k-th value.

    What is above it is chosen, then its equals from the left.
    """
    rows, columns = values.shape
    wanted = out.shape[1]
    least = torch.topk(values, wanted, dim=-1, sorted=False).values.amin(-1, keepdim=True)
    above = values > least
    equal = (values == least) & (least > NEVER)
    room = wanted - above.sum(-1, keepdim=True, dtype=torch.int32)
    chosen = above | (equal & (equal.cumsum(-1, dtype=torch.int32) <= room))
    place = chosen.cumsum(-1, dtype=torch.int64).sub_(1)
    place.masked_fill_(~chosen, wanted)  # the spare last column takes what is not chosen
    names = torch.arange(columns, device=values.device, dtype=torch.int32).expand(rows, -1)
    found = torch.full((rows, wanted + 1), -1, dtype=torch.int32, device=values.device)
    out.copy_(found.scatter_(1, place, names)[:, :wanted])


def every(positions: torch.Tensor, out: torch.Tensor) -> None:
    """Write 0..positions[t] of each row, then -1: out [T, k] i32."""
    index = torch.arange(out.shape[1], device=out.device, dtype=torch.int32)
    out.copy_(torch.where(index <= positions[:, None], index, -1))
