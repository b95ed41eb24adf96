"""Twins of routing and of grouped products."""

from __future__ import annotations

import torch
from torch import Tensor

from lostwax.backends.ascend.twins.checked import dtype_of, numbers
from lostwax.backends.ascend.twins.plain import int8_product


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
    dropped = torch.ones(grouped.shape[:2], dtype=torch.bool).scatter_(1, kept, False)
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
    first, stop = active_expert_range
    if bool(((flat < first) | (flat >= stop)).any()) or active_num != flat.numel():
        raise ValueError("npu_moe_init_routing_v2: this twin knows no row that is left out")
    order = torch.sort(flat, stable=True).indices
    place = torch.empty_like(order)
    place[order] = torch.arange(order.numel())
    owner = order // expert_idx.shape[1]
    counts = torch.bincount(flat, minlength=expert_num)
    scales = x.new_empty(0, dtype=torch.float32) if scale is None else scale[owner]
    return x[owner], place.int(), counts, scales


def grouped_matmul(
    x: list[Tensor],
    weight: list[Tensor],
    *,
    bias: list[Tensor] | None = None,
    scale: list[Tensor] | None = None,
    offset: list[Tensor] | None = None,
    antiquant_scale: list[Tensor] | None = None,
    antiquant_offset: list[Tensor] | None = None,
    per_token_scale: list[Tensor] | None = None,
    group_list: Tensor | None = None,
    activation_input: list[Tensor] | None = None,
    activation_quant_scale: list[Tensor] | None = None,
    activation_quant_offset: list[Tensor] | None = None,
    split_item: int | None = 0,
    group_type: int | None = None,
    group_list_type: int | None = 0,
    act_type: int | None = 0,
    tuning_config: list[int] | None = None,
    output_dtype: int | None = None,
    x_dtype: int | None = None,
    weight_dtype: int | None = None,
    scale_dtype: int | None = None,
    per_token_scale_dtype: int | None = None,
) -> list[Tensor]:
    """npu_grouped_matmul: each expert's rows times its weight, scales in f32, rounded once."""
    assert group_list is not None
    (rows,), (stack,) = x, weight
    wanted = dtype_of(output_dtype)
    out = torch.empty((rows.shape[0], stack.shape[2]), dtype=wanted)
    start = 0
    for expert, count in enumerate(numbers(group_list)):
        at = slice(start, start + count)
        if rows.dtype == torch.int8:
            assert scale is not None
            assert per_token_scale is not None
            sums = int8_product(rows[at], stack[expert])
            scaled = sums * scale[0][expert].float() * per_token_scale[0][at, None]
            out[at] = scaled.to(wanted)
        else:
            out[at] = torch.mm(rows[at].float(), stack[expert].float()).to(wanted)
        start += count
    return [out]


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
