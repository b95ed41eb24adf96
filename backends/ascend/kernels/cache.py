"""Writes to paged caches by CANN's operators."""

from __future__ import annotations

import torch

from lostwax.backends.ascend.kernels.operators import calls, operator
from lostwax.backends.ascend.kernels.planes import halves, parts_of


@calls("npu_scatter_nd_update_")
def append_apart(cache: torch.Tensor, slots: torch.Tensor, *rows: torch.Tensor) -> None:
    """Write the parts of row t at slots[t], each where it lies: cache u8 [blocks, block, bytes].

    The last part is kept in halves. slots i64 [T]; padded rows share a slot of the trash page:
    which of them stays is of no interest.
    """
    widths = [part.shape[1] for part in rows]
    kept = (*rows[:-1], halves(rows[-1]))
    for place, part in zip(parts_of(cache, widths), kept, strict=True):
        _scatter(place.view(-1, part.shape[1]), slots, part)


@calls("npu_scatter_nd_update_")
def append(cache: torch.Tensor, slots: torch.Tensor, row: torch.Tensor) -> None:
    """Write row t [T, D] at slots[t]: cache bf16 [blocks, block, D], slots i64 [T]."""
    _scatter(cache.view(-1, row.shape[1]), slots, row)


def _scatter(place: torch.Tensor, slots: torch.Tensor, rows: torch.Tensor) -> None:
    operator("npu_scatter_nd_update_")(place, slots[:, None], rows.to(place.dtype))


def kept_slots(positions: torch.Tensor, slots: torch.Tensor, out: torch.Tensor) -> None:
    """Write slots i32 [T] as i64, -1 for rows without a token: those are not written."""
    out.copy_(slots.long().masked_fill(positions < 0, -1))


@calls("npu_kv_rmsnorm_rope_cache")
def norm_rope_append(
    cache: torch.Tensor,
    latent: torch.Tensor,
    weight: torch.Tensor,
    rope_key: torch.Tensor,
    angles: torch.Tensor,
    slots: torch.Tensor,
    *,
    eps: float,
) -> None:
    """Norm latent [T, C], rotate rope_key [T, R], write both of row t at slots[t] where it is >= 0.

    cache u8 [blocks, block, bytes] of layout bf16_apart, angles bf16 [2, T, R] in halves: cosines
    and sines, slots i64 [T]. The operator takes pairs side by side and keeps them in halves.
    """
    keys, rope_keys = parts_of(cache, (latent.shape[1], rope_key.shape[1]))
    operator("npu_kv_rmsnorm_rope_cache")(
        torch.cat((latent, rope_key), -1)[:, None, None],
        weight,
        angles[0][:, None, None],
        angles[1][:, None, None],
        slots,
        rope_keys,
        keys,
        epsilon=eps,
        cache_mode="PA_BNSD",
    )
