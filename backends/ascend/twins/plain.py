"""Twins of norms, rotation, rounding, products and scatter."""

from __future__ import annotations

import torch
from torch import Tensor

from lostwax.backends.ascend.twins.checked import dtype_of

INT8_MAX = 127.0


def rms_norm(input: Tensor, gamma: Tensor, epsilon: float = 1e-6) -> tuple[Tensor, Tensor]:
    """npu_rms_norm: in f32, rounded once; also 1 / RMS."""
    wide = input.float()
    inverse = torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)
    return (wide * inverse * gamma.float()).to(input.dtype), inverse


def add_rms_norm(
    x1: Tensor, x2: Tensor, gamma: Tensor, epsilon: float = 1e-6
) -> tuple[Tensor, Tensor, Tensor]:
    """npu_add_rms_norm: the norm of the sum as it is in f32, and the sum rounded."""
    total = x1.float() + x2.float()
    normed, inverse = rms_norm(total, gamma.float(), epsilon)
    return normed.to(x1.dtype), inverse, total.to(x1.dtype)


def rotary_mul(
    input: Tensor,
    r1: Tensor,
    r2: Tensor,
    rotary_mode: str = "half",
    rotate: Tensor | None = None,
) -> Tensor:
    """npu_rotary_mul: x cos + rotate(x) sin, pairs side by side or a half apart."""
    assert rotate is None
    if rotary_mode == "half":
        first, second = input.chunk(2, -1)
        turned = torch.cat((-second, first), -1)
    else:
        turned = torch.stack((-input[..., 1::2], input[..., ::2]), -1).flatten(-2)
    return (input.float() * r1.float() + turned.float() * r2.float()).to(input.dtype)


def scatter_nd_update(input: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    """npu_scatter_nd_update_: rows of `input` replaced in place."""
    place = indices[:, 0].long()
    if bool(((place < 0) | (place >= input.shape[0])).any()):
        raise IndexError("npu_scatter_nd_update_: an index lies outside of the input")
    return input.index_copy_(0, place, updates)


def dynamic_quant(
    input: Tensor,
    *,
    smooth_scales: Tensor | None = None,
    group_index: Tensor | None = None,
    dst_type: int | None = None,
    quant_mode: str = "pertoken",
    dst_type_max: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """npu_dynamic_quant: int8 and a scale a row, its largest magnitude / 127."""
    assert smooth_scales is group_index is dst_type is None
    wide = input.float()
    scale = wide.abs().amax(-1) / INT8_MAX
    values = torch.nan_to_num(wide / scale[..., None]).round().clamp(-INT8_MAX, INT8_MAX)
    return values.to(torch.int8), scale


def quant_matmul(
    x1: Tensor,
    x2: Tensor,
    scale: Tensor,
    *,
    offset: Tensor | None = None,
    pertoken_scale: Tensor | None = None,
    bias: Tensor | None = None,
    output_dtype: int | None = None,
    x1_dtype: int | None = None,
    x2_dtype: int | None = None,
    pertoken_scale_dtype: int | None = None,
    scale_dtype: int | None = None,
    group_sizes: list[int] | None = None,
    y_scale: Tensor | None = None,
) -> Tensor:
    """npu_quant_matmul: exact integer sums, times both scales in f32, rounded once."""
    assert offset is bias is group_sizes is y_scale is None
    assert pertoken_scale is not None
    sums = int8_product(x1, x2)
    return (sums * scale.float() * pertoken_scale[:, None]).to(dtype_of(output_dtype))


def int8_product(x: Tensor, weight: Tensor) -> Tensor:
    """x W as f32 of exact sums: f64 holds the integers that f32 may not."""
    return torch.mm(x.double(), weight.double()).float()


def swiglu(input: Tensor, dim: int = -1) -> Tensor:
    """npu_swiglu: silu of the first half times the second."""
    gate, up = input.float().chunk(2, dim)
    return (torch.nn.functional.silu(gate) * up).to(input.dtype)
