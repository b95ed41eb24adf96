"""Rotary position embedding by CANN's operator, in f32: its tables are of the input's dtype."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from lostwax.backends.ascend.kernels.operators import calls, operator
from lostwax.backends.portable.kernels.rope import in_place_of_part, rope_table

FINE = 1024
"""Positions whose angles the finer table has; the other has those of their multiples."""
MOST = 1 << 22
"""Positions that both tables reach: 4,096 pages of the largest block that CANN takes."""


@cache
def tables(device: torch.device, dim: int, **consts: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines f32 [2, n, dim/2] of every multiple of FINE, and of what lies between.

    Made on the host, once a process: the device has no f64, and f32 loses the third decimal of a
    position's angle at 100,000. About a megabyte.
    """
    magnitude = consts.pop("magnitude")

    def made(positions: torch.Tensor, magnitude: float) -> torch.Tensor:
        wide = torch.empty((2, positions.shape[0], dim), dtype=torch.float32)
        rope_table(positions, wide, dim=dim, interleaved=False, magnitude=magnitude, **consts)
        # the portable table's first sines bear the sign that the operator gives itself
        return wide[..., dim // 2 :].to(device)

    return made(torch.arange(0, MOST, FINE), magnitude), made(torch.arange(FINE), 1.0)


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
    """Write [2, T, dim]: cosines and sines, the same for both numbers of a pair.

    A position's angle is the sum of two that tables have, so that nothing is asked of the host.
    """
    coarse, fine = tables(
        out.device,
        dim,
        theta=theta,
        factor=factor,
        original_len=original_len,
        beta_fast=beta_fast,
        beta_slow=beta_slow,
        magnitude=magnitude,
    )
    seen = positions.clamp(min=0)
    cos_a, sin_a = coarse.index_select(1, torch.div(seen, FINE, rounding_mode="floor")).unbind()
    cos_b, sin_b = fine.index_select(1, seen.remainder(FINE)).unbind()
    angles = torch.stack((cos_a * cos_b - sin_a * sin_b, sin_a * cos_b + cos_a * sin_b))
    out.copy_(torch.stack((angles, angles), -1 if interleaved else -2).flatten(-2))


@calls("npu_rotary_mul")
def rotate(
    x: torch.Tensor, angles: torch.Tensor, out: torch.Tensor, *, offset: int, interleaved: bool
) -> None:
    """Rotate the elements of x [T, ..., D] from `offset` on by a table [2, T, dim], copy others."""
    place = in_place_of_part(x, out, offset, angles.shape[-1])
    part = x[..., offset : offset + angles.shape[-1]].float()
    by_head = part if part.dim() == 3 else part[:, None]
    mode = "interleave" if interleaved else "half"
    cos, sin = angles[0][:, None], angles[1][:, None]
    place.copy_(operator("npu_rotary_mul")(by_head, cos, sin, mode).view(part.shape))
