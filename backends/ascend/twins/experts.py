"""Twins of routing and of grouped products."""

from __future__ import annotations

import torch
from torch import Tensor

from lostwax.backends.ascend.kernels import composed
from lostwax.backends.ascend.twins.checked import dtype_of, numbers
from lostwax.backends.ascend.twins.plain import int8_product


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
    """npu_moe_init_routing_v2: refuses rows that are left out."""
    flat, (first, stop) = expert_idx.flatten(), active_expert_range
    if bool(((flat < first) | (flat >= stop)).any()) or active_num != flat.numel():
        raise ValueError("npu_moe_init_routing_v2: this twin knows no row that is left out")
    return composed.init_routing(x, expert_idx, scale=scale, expert_num=expert_num)


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
