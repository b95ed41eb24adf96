"""Rotary position embedding with YaRN's frequencies on torch. Knows nothing of programs."""

from __future__ import annotations

from math import ceil, floor, log, pi

import torch


def correction_range(
    dim: int, theta: float, original_len: int, beta_fast: float, beta_slow: float
) -> tuple[int, int]:
    """First and last pair of the blend (YaRN, arXiv:2309.00071, section 3.2)."""

    def corr(rotations: float) -> float:
        return dim * log(original_len / (2 * pi * rotations)) / (2 * log(theta))

    return max(floor(corr(beta_fast)), 0), min(ceil(corr(beta_slow)), dim - 1)


def _angles(
    positions: torch.Tensor,
    dim: int,
    theta: float,
    factor: float,
    original_len: int,
    beta_fast: float,
    beta_slow: float,
) -> torch.Tensor:
    """Radians [T, dim/2] in f64: at position 100,000 f32 would lose the third decimal."""
    pair = torch.arange(dim // 2, device=positions.device, dtype=torch.float64)
    frequency = torch.pow(theta, pair * (-2.0 / dim))
    if factor != 1:
        low, high = correction_range(dim, theta, original_len, beta_fast, beta_slow)
        ramp = ((pair - low) / max(high - low, 1e-3)).clamp_(0, 1)
        frequency = frequency * (ramp / factor + (1 - ramp))
    return positions.double()[:, None] * frequency


def rope_table(
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
    """Write [2, T, dim] f32: cosines, then sines signed so that x cos + swapped(x) sin rotates."""
    angles = _angles(positions, dim, theta, factor, original_len, beta_fast, beta_slow)
    cos, sin = angles.cos() * magnitude, angles.sin() * magnitude
    axis = -1 if interleaved else -2
    out[0].copy_(torch.stack([cos, cos], axis).flatten(-2))
    out[1].copy_(torch.stack([-sin, sin], axis).flatten(-2))


def in_place_of_part(x: torch.Tensor, out: torch.Tensor, offset: int, dim: int) -> torch.Tensor:
    """Copy what is not rotated; where the `dim` elements from `offset` are to be written."""
    end = offset + dim
    if offset:
        out[..., :offset].copy_(x[..., :offset])
    if end < x.shape[-1]:
        out[..., end:].copy_(x[..., end:])
    return out[..., offset:end]


def rotate(
    x: torch.Tensor, table: torch.Tensor, out: torch.Tensor, *, offset: int, interleaved: bool
) -> None:
    """Rotate the elements from `offset` by a table of rope_table, copy the others."""
    dim = table.shape[-1]
    target = in_place_of_part(x, out, offset, dim)
    cos, sin = table[0], table[1]
    if x.dim() == 3:
        cos, sin = cos[:, None], sin[:, None]
    half = dim // 2
    pairs, axis = ((half, 2), -1) if interleaved else ((2, half), -2)
    part = x[..., offset : offset + dim].float()
    swapped = part.reshape(*part.shape[:-1], *pairs).flip(axis).flatten(-2)
    if out.dtype == torch.float32:
        torch.mul(part, cos, out=target)
        target.addcmul_(swapped, sin)
    else:
        target.copy_(torch.addcmul(part * cos, swapped, sin))


def rope(
    x: torch.Tensor,
    positions: torch.Tensor,
    out: torch.Tensor,
    *,
    offset: int,
    dim: int,
    interleaved: bool,
    theta: float,
    factor: float,
    original_len: int,
    beta_fast: float,
    beta_slow: float,
    magnitude: float,
) -> None:
    """Rotate with a table made in the call."""
    table = torch.empty((2, x.shape[0], dim), dtype=torch.float32, device=x.device)
    rope_table(
        positions,
        table,
        dim=dim,
        interleaved=interleaved,
        theta=theta,
        factor=factor,
        original_len=original_len,
        beta_fast=beta_fast,
        beta_slow=beta_slow,
        magnitude=magnitude,
    )
    rotate(x, table, out, offset=offset, interleaved=interleaved)
