"""What torch's operators make of CANN's on any device: taken where CANN's own is not the known one.

Named and called as the operators' schemas have it. The twins are these, too, behind their rules.
What reads by lengths or multiplies int8 is not here: torch has nothing that does so without
copying weights or waiting for the device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from lostwax.backends.ascend.kernels.planes import halves

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
    return input.index_copy_(0, indices[:, 0].long(), updates)


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
    """npu_kv_rmsnorm_rope_cache: what is normed and what is rotated, each row into its place.

    Pairs side by side come out in halves. A row of -1 is written to place 0, of the trash page.
    """
    assert k_rope_scale is c_kv_scale is k_rope_offset is c_kv_offset is v is None
    rank = gamma.shape[0]
    normed, _ = rms_norm(kv[..., :rank], gamma, epsilon)
    turned = rotary_mul(halves(kv[..., rank:]), cos, sin)
    place = index.clamp(min=0)
    ckv_cache.view(-1, rank).index_copy_(0, place, normed[:, 0, 0])
    k_cache.view(-1, turned.shape[-1]).index_copy_(0, place, turned[:, 0, 0])
    return k_cache, ckv_cache, turned, normed


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


def swiglu(input: Tensor, dim: int = -1) -> Tensor:
    """npu_swiglu: silu of the first half times the second."""
    gate, up = input.chunk(2, dim)
    wide = torch.nn.functional.silu(gate.float(), inplace=True)  # long prompts' rows take much room
    return wide.mul_(up).to(input.dtype)


def gating_top_k(
    x: Tensor,
    k: int,
    *,
    bias: Tensor | None = None,
    input_ids: Tensor | None = None,
    tid2eid: Tensor | None = None,
    k_group: int = 1,
    group_count: int = 1,
    group_select_mode: int = 0,
    renorm: int = 0,
    norm_type: int = 0,
    out_flag: bool = False,
    routed_scaling_factor: float = 1.0,
    eps: float = 1e-20,
) -> tuple[Tensor, Tensor, Tensor]:
    """npu_moe_gating_top_k: sigmoid; groups by their two best, experts by biased scores.

    Of equals the first is taken: the page's own code sorts so.
    """
    assert bias is not None
    assert input_ids is tid2eid is None
    scores = torch.sigmoid(x.float())
    grouped = (scores + bias.float()).view(x.shape[0], group_count, -1)
    of_group = grouped.topk(2, -1).values.sum(-1)
    kept = torch.sort(of_group, dim=-1, descending=True, stable=True).indices[:, :k_group]
    dropped = torch.ones(grouped.shape[:2], dtype=torch.bool, device=x.device)
    dropped = dropped.scatter_(1, kept, False)
    allowed = grouped.masked_fill(dropped[..., None], float("-inf")).flatten(1)
    chosen = torch.sort(allowed, dim=-1, descending=True, stable=True).indices[:, :k]
    weights = scores.gather(1, chosen)
    weights = weights / (weights.sum(-1, keepdim=True) + eps) * routed_scaling_factor
    return weights.to(x.dtype), chosen.int(), scores


def init_routing(
    x: Tensor,
    expert_idx: Tensor,
    *,
    scale: Tensor | None = None,
    offset: Tensor | None = None,
    active_num: int = -1,
    expert_capacity: int = -1,
    expert_num: int = -1,
    drop_pad_mode: int = 0,
    expert_tokens_num_type: int = 0,
    expert_tokens_num_flag: bool = False,
    quant_mode: int = -1,
    active_expert_range: list[int] | tuple[int, ...] = (),
    row_idx_type: int = 0,
    x_dtype: int | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """npu_moe_init_routing_v2: rows by expert, in each the tokens' order; where each pair went."""
    flat = expert_idx.flatten().long()
    order = torch.sort(flat, stable=True).indices
    place = torch.empty_like(order)
    place[order] = torch.arange(order.numel(), device=x.device)
    owner = torch.div(order, expert_idx.shape[1], rounding_mode="floor")
    counts = (flat[:, None] == torch.arange(expert_num, device=x.device)).sum(0)
    scales = x.new_empty(0, dtype=torch.float32) if scale is None else scale[owner]
    return x[owner], place.int(), counts, scales


def finalize_routing(
    expanded_permuted_rows: Tensor,
    skip1: Tensor | None,
    skip2: Tensor | None,
    bias: Tensor | None,
    scales: Tensor | None,
    expanded_src_to_dst_row: Tensor,
    export_for_source_row: Tensor | None,
    drop_pad_mode: int | None = 0,
    k: int | None = 1,
) -> Tensor:
    """npu_moe_finalize_routing: the weighed sum of each token's rows; pairs of a token together."""
    assert skip1 is skip2 is bias is export_for_source_row is None
    assert scales is not None
    taken = expanded_permuted_rows[expanded_src_to_dst_row.long()].float()
    by_token = taken.view(*scales.shape, -1)
    return (by_token * scales.float()[..., None]).sum(1).to(expanded_permuted_rows.dtype)


COMPOSED: Mapping[str, Callable[..., Any]] = {
    "npu_rms_norm": rms_norm,
    "npu_add_rms_norm": add_rms_norm,
    "npu_rotary_mul": rotary_mul,
    "npu_scatter_nd_update_": scatter_nd_update,
    "npu_kv_rmsnorm_rope_cache": kv_rmsnorm_rope_cache,
    "npu_dynamic_quant": dynamic_quant,
    "npu_swiglu": swiglu,
    "npu_moe_gating_top_k": gating_top_k,
    "npu_moe_init_routing_v2": init_routing,
    "npu_moe_finalize_routing": finalize_routing,
}
"""By operator. What they allocate is within what their lowerings say that they do."""
