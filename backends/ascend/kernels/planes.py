"""The parts of one layer's cache as tensors of their own, and the order in which one is kept."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def parts_of(cache: torch.Tensor, widths: Sequence[int]) -> list[torch.Tensor]:
    """Dense bf16 tensors over a cache of layout bf16_apart: u8 [blocks, block, bytes of a row]."""
    blocks, block, _ = cache.shape
    flat = cache.view(torch.bfloat16).view(-1)
    found: list[torch.Tensor] = []
    start = 0
    for width in widths:
        stop = start + blocks * block * width
        found.append(flat[start:stop].view(blocks, block, 1, width))
        start = stop
    return found


def halves(x: torch.Tensor) -> torch.Tensor:
    """x [..., D] with its even numbers in front of its odd ones: a dense copy."""
    return x.reshape(*x.shape[:-1], -1, 2).transpose(-1, -2).flatten(-2)
