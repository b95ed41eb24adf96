"""Writes to the paged cache on torch. Knows nothing of programs."""

from __future__ import annotations

import torch


def append(cache: torch.Tensor, slots: torch.Tensor, *rows: torch.Tensor) -> None:
    """Write the parts of row t side by side at slots[t]: cache [N, page, width], slots i64 [T].

    Padded rows share a slot of the trash page; which of them stays there is of no interest.
    """
    flat = cache.view(-1, cache.shape[2])
    start = 0
    for part in rows:
        stop = start + part.shape[1]
        flat[:, start:stop].index_copy_(0, slots, part.to(cache.dtype))
        start = stop


def wide_slots(slots: torch.Tensor, out: torch.Tensor) -> None:
    """Write slots as i64, which torch's index_copy_ wants: once a step, not once a cache."""
    out.copy_(slots)
