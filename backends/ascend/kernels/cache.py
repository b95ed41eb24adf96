"""Writes to paged caches by CANN's scatter."""

from __future__ import annotations

import torch

from lostwax.backends.ascend.kernels.installed import require_library as require_library
from lostwax.backends.ascend.kernels.planes import parts_of


def append_apart(cache: torch.Tensor, slots: torch.Tensor, *rows: torch.Tensor) -> None:
    """Write the parts of row t at slots[t], each where it lies: cache u8 [blocks, block, bytes].

    slots i64 [T]. Padded rows share a slot of the trash page; which of them stays is of no
    interest.
    """
    widths = [part.shape[1] for part in rows]
    for place, part in zip(parts_of(cache, widths), rows, strict=True):
        _scatter(place.view(-1, part.shape[1]), slots, part)


def append(cache: torch.Tensor, slots: torch.Tensor, row: torch.Tensor) -> None:
    """Write row t [T, D] at slots[t]: cache bf16 [blocks, block, D], slots i64 [T]."""
    _scatter(cache.view(-1, row.shape[1]), slots, row)


def _scatter(place: torch.Tensor, slots: torch.Tensor, rows: torch.Tensor) -> None:
    torch.ops.npu.npu_scatter_nd_update_(place, slots[:, None], rows.to(place.dtype))
