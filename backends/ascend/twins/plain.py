"""Twins of writes to caches and of products; the others are `kernels/composed.py`'s."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lostwax.backends.ascend.kernels import composed
from lostwax.backends.ascend.twins.checked import dtype_of


def scatter_nd_update(input: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    """npu_scatter_nd_update_: refuses what lies outside, which a device need not."""
    place = indices[:, 0]
    if bool(((place < 0) | (place >= input.shape[0])).any()):
        raise IndexError("npu_scatter_nd_update_: an index lies outside of the input")
    return composed.scatter_nd_update(input, indices, updates)


def kv_rmsnorm_rope_cache(
    kv: Tensor,
    gamma: Tensor,
    cos: Tensor,
    sin: Tensor,
    index: Tensor,
    k_cache: Tensor,
    ckv_cache: Tensor,
    *,
    k_rope_scale: Tensor | None = None,
    c_kv_scale: Tensor | None = None,
    k_rope_offset: Tensor | None = None,
    c_kv_offset: Tensor | None = None,
    v: Tensor | None = None,
    epsilon: float = 1e-5,
    cache_mode: str = "Norm",
    is_output_kv: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """npu_kv_rmsnorm_rope_cache: rows of -1 are not written. What nobody asked for is NaN."""
    kept = index >= 0
    options: dict[str, Any] = {
        "k_rope_scale": k_rope_scale,
        "c_kv_scale": c_kv_scale,
        "k_rope_offset": k_rope_offset,
        "c_kv_offset": c_kv_offset,
        "v": v,
    }
    composed.kv_rmsnorm_rope_cache(
        kv[kept], gamma, cos[kept], sin[kept], index[kept], k_cache, ckv_cache,
        epsilon=epsilon, cache_mode=cache_mode, **options,
    )  # fmt: skip
    nothing = float("nan")
    turned = torch.full((*kv.shape[:3], cos.shape[3]), nothing, dtype=kv.dtype)
    normed = torch.full((*kv.shape[:3], gamma.shape[0]), nothing, dtype=kv.dtype)
    return torch.empty_like(k_cache), torch.empty_like(ckv_cache), turned, normed


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
