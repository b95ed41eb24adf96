"""Rotary position embedding by CANN's operator, in f32: its tables are of the input's dtype."""

from __future__ import annotations

import torch

from lostwax.backends.ascend.kernels.installed import require_library as require_library
from lostwax.backends.portable.kernels.rope import rope_table


def table(
    positions: torch.Tensor,
    out: torch.Tensor,
    *,
    dim: int,
    interleaved: bool,
    theta: float,
    factor: float,
    original_len: int,
    beta_fast: float,
    beta_slow: float,
    magnitude: float,
) -> None:
    """Write [2, T, dim] f32: cosines and sines, the same for both numbers of a pair.

    Angles are made on the host: the device has no f64, and f32 loses the third decimal of a
    position's angle at 100,000.
    """
    host = positions.cpu()
    made = torch.empty(out.shape, dtype=torch.float32)
    rope_table(
        host,
        made,
        dim=dim,
        interleaved=interleaved,
        theta=theta,
        factor=factor,
        original_len=original_len,
        beta_fast=beta_fast,
        beta_slow=beta_slow,
        magnitude=magnitude,
    )
    if interleaved:  # the portable table's sines bear the sign that the operator gives itself
        made[1, :, 0::2].neg_()
    else:
        made[1, :, : dim // 2].neg_()
    out.copy_(made)


def rotate(
    x: torch.Tensor, angles: torch.Tensor, out: torch.Tensor, *, offset: int, interleaved: bool
) -> None:
    """Rotate the elements of x [T, ..., D] from `offset` on by a table [2, T, dim], copy others."""
    end = offset + angles.shape[-1]
    if offset:
        out[..., :offset].copy_(x[..., :offset])
    if end < x.shape[-1]:
        out[..., end:].copy_(x[..., end:])
    part = x[..., offset:end].float()
    by_head = part if part.dim() == 3 else part[:, None]
    mode = "interleave" if interleaved else "half"
    rotated = torch.ops.npu.npu_rotary_mul(by_head, angles[0][:, None], angles[1][:, None], mode)
    out[..., offset:end].copy_(rotated.view(part.shape))
