"""Rows of 8 bits with a scale a block of columns: made from wide rows, and widened again, on torch.

Knows nothing of programs. Every step is the meaning's own f32 step, so results are equal in bits.
"""

from __future__ import annotations

import torch

from lostwax.ir.contract.scale_layout import FP8_BLOCK

FP8_TYPES = {"f8E4M3FN": torch.float8_e4m3fn, "f8E4M3FNUZ": torch.float8_e4m3fnuz}
"""The encodings of fp8, by the names that layouts have for them."""

LEAST_AMAX = 1e-4  # official act_quant: keeps the scale of a block of zeros above 0


def widen(
    values: torch.Tensor, scales: torch.Tensor | None, block: int = FP8_BLOCK
) -> torch.Tensor:
    """f32 values [..., D] times scales [..., ceil(D / block)], if there are any."""
    wide = values.float()
    if scales is None:
        return wide
    cols = wide.shape[-1]
    if scales.shape[-1] == 1:
        return wide * scales
    if cols % block == 0:
        blocked = wide.reshape(*wide.shape[:-1], -1, block)
        return (blocked * scales[..., None]).reshape(wide.shape)
    return wide * scales.repeat_interleave(block, -1)[..., :cols]


def power_of_two_above(scale: torch.Tensor) -> torch.Tensor:
    """2^ceil(log2(scale)) of f32 by the bits: the exponent, one higher unless the mantissa is 0."""
    bits = scale.view(torch.int32)
    exponent = (bits >> 23) + ((bits & 0x7FFFFF) != 0)
    return (exponent << 23).to(torch.int32).view(torch.float32)


def largest_of(dtype: torch.dtype) -> float:
    """The largest value of what has scales; int8 is -127 .. 127."""
    return 127.0 if dtype == torch.int8 else torch.finfo(dtype).max


def encoded(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """f32 x in fp8 or int8: to nearest even, saturating. Changes x."""
    largest = largest_of(dtype)
    x = x.clamp_(-largest, largest)
    return (x.round_() if dtype == torch.int8 else x).to(dtype)


def block_amax(x: torch.Tensor, block: int) -> torch.Tensor:
    """The largest magnitude of each block of the last axis; the last block may be partial."""
    cols = x.shape[-1]
    if cols % block == 0:
        return x.reshape(*x.shape[:-1], -1, block).abs().amax(-1)
    parts = [x[..., i : i + block].abs().amax(-1) for i in range(0, cols, block)]
    return torch.stack(parts, -1)


def quantise(
    x: torch.Tensor,
    values: torch.Tensor,
    scales: torch.Tensor,
    *,
    scale_fmt: str,
    block: int,
) -> None:
    """Write fp8 or int8 values [..., D] and f32 scales [..., ceil(D / block)] of x [..., D]."""
    wide = x.float()
    scale = block_amax(wide, block).clamp_(min=LEAST_AMAX).div_(largest_of(values.dtype))
    scales.copy_(power_of_two_above(scale) if scale_fmt == "ue8m0" else scale)
    spread = scales.repeat_interleave(block, -1)[..., : x.shape[-1]]
    values.copy_(encoded(wide / spread, values.dtype))


def rounded(x: torch.Tensor, dtype: torch.dtype, scale_fmt: str, block: int) -> torch.Tensor:
    """f32 x as `quantise` keeps it, widened again; x itself without a scale_fmt."""
    if not scale_fmt:
        return x
    values = torch.empty(x.shape, dtype=dtype, device=x.device)
    blocks = -(-x.shape[-1] // block)
    scales = torch.empty((*x.shape[:-1], blocks), dtype=torch.float32, device=x.device)
    quantise(x, values, scales, scale_fmt=scale_fmt, block=block)
    return widen(values, scales, block)
