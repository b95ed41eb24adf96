"""Writes to the paged cache on torch. Knows nothing of programs."""

from __future__ import annotations

import torch

from lostwax.backends.portable.kernels.paging import paged_parts
from lostwax.ir.contract.cache_layout import LAYOUTS


def append(cache: torch.Tensor, slots: torch.Tensor, *rows: torch.Tensor) -> None:
    """Write the parts of row t side by side at slots[t]: cache [N, page, width], slots i64 [T].

    Padded rows share a slot of the trash page; which of them stays there is of no interest.
    """
    flat = cache.view(-1, cache.shape[2])
    start = 0
    for part in rows:
        stop = start + part.shape[1]
        if cache.element_size() == 1:
            _append_fp8(flat[:, start:stop], slots, part)
        else:
            flat[:, start:stop].index_copy_(0, slots, part.to(cache.dtype))
        start = stop


def _append_fp8(place: torch.Tensor, slots: torch.Tensor, part: torch.Tensor) -> None:
    """Saturating; as bytes, because torch does not index one-byte floats on every device."""
    largest = torch.finfo(place.dtype).max
    rounded = part.float().clamp_(-largest, largest).to(place.dtype)
    place.view(torch.uint8).index_copy_(0, slots, rounded.view(torch.uint8))


def _bytes(part: torch.Tensor) -> torch.Tensor:
    return part.contiguous().view(torch.uint8)


def append_scaled(
    cache: torch.Tensor,
    slots: torch.Tensor,
    scales: torch.Tensor,
    values: torch.Tensor,
    *parts: torch.Tensor,
    layout: str,
) -> None:
    """Write fp8 values [T, D], their f32 scales and bf16 parts as the layout's bytes at slots."""
    first, scale = _bytes(values), _bytes(scales)
    form = LAYOUTS[layout]
    if form.is_paged:
        row = (values.shape[1],)
        tokens = cache.shape[1] // form.row_bytes(row)
        at = (slots // tokens, slots % tokens)
        for place, part in zip(paged_parts(cache, form, row), (first, scale), strict=True):
            place.index_put_(at, part)
        return
    rest = [_bytes(part.to(torch.bfloat16)) for part in parts]
    flat = cache.view(-1, cache.shape[2])
    flat.index_copy_(0, slots, torch.cat([first, scale, *rest], -1))


def wide_slots(slots: torch.Tensor, out: torch.Tensor) -> None:
    """Write slots as i64, which torch's index_copy_ wants: once a step, not once a cache."""
    out.copy_(slots)
