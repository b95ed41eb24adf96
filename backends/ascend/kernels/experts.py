"""Expert choice and routed experts by CANN's operators."""

from __future__ import annotations

import torch

from lostwax.backends.ascend.kernels.operators import calls, operator


@calls("npu_moe_gating_top_k")
def route(
    logits: torch.Tensor,
    bias: torch.Tensor,
    positions: torch.Tensor,
    ids: torch.Tensor,
    weights: torch.Tensor,
    *,
    top_k: int,
    n_group: int,
    topk_group: int,
    scale: float,
) -> None:
    """Write ids i32 and weights f32 [T, K] of logits f32 [T, E]; rows without a token get -1, 0."""
    chosen_weights, chosen, _ = operator("npu_moe_gating_top_k")(
        logits,
        top_k,
        bias=bias,
        k_group=topk_group,
        group_count=n_group,
        group_select_mode=1,
        renorm=0,
        norm_type=1,
        routed_scaling_factor=scale,
        eps=1e-20,
    )
    padded = (positions < 0)[:, None]
    weights.copy_(chosen_weights.masked_fill(padded, 0))
    ids.copy_(chosen.masked_fill(padded, -1))


@calls("npu_moe_init_routing_v2", "npu_grouped_matmul", "npu_swiglu", "npu_moe_finalize_routing")
def experts(
    x: torch.Tensor,
    ids: torch.Tensor,
    weights: torch.Tensor,
    gate_up: torch.Tensor,
    down: torch.Tensor,
    out: torch.Tensor,
) -> None:
    """Write what chosen experts give x bf16 [T, D]: gate_up [E, 2 I, D], down [E, D, I]."""
    rows, place, counts, _ = _routed(x, None, ids, gate_up.shape[0])
    hidden = operator("npu_swiglu")(_grouped(rows, gate_up, counts), -1)
    _finalise(_grouped(hidden, down, counts), place, ids, weights, out)


@calls(
    "npu_moe_init_routing_v2",
    "npu_grouped_matmul",
    "npu_swiglu",
    "npu_dynamic_quant",
    "npu_moe_finalize_routing",
)
def quant_experts(
    x: torch.Tensor,
    x_scale: torch.Tensor,
    ids: torch.Tensor,
    weights: torch.Tensor,
    gate_up: torch.Tensor,
    gate_up_scale: torch.Tensor,
    down: torch.Tensor,
    down_scale: torch.Tensor,
    out: torch.Tensor,
) -> None:
    """The same in int8: x [T, D] with scales [T, 1], weights with scales [E, 2 I, 1], [E, D, 1].

    What enters `down` is rounded to int8 with a scale a row.
    """
    rows, place, counts, row_scale = _routed(x, x_scale.reshape(-1), ids, gate_up.shape[0])
    gated = _quant_grouped(rows, row_scale, gate_up, gate_up_scale, counts)
    hidden, hidden_scale = operator("npu_dynamic_quant")(operator("npu_swiglu")(gated, -1))
    result = _quant_grouped(hidden, hidden_scale, down, down_scale, counts)
    _finalise(result, place, ids, weights, out)


def _routed(
    x: torch.Tensor, scale: torch.Tensor | None, ids: torch.Tensor, experts: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows [T * K, D] in the order of their experts, where each pair's row is, how many rows each
    expert has, the rows' scales.

    What has no expert goes to expert 0 and is weighed by 0: the products want every row counted.
    """
    return operator("npu_moe_init_routing_v2")(
        x,
        ids.clamp(min=0),
        scale=scale,
        active_num=ids.numel(),
        expert_num=experts,
        drop_pad_mode=0,
        expert_tokens_num_type=1,
        expert_tokens_num_flag=True,
        quant_mode=-1,
        active_expert_range=[0, experts],
        row_idx_type=0,
    )


def _grouped(x: torch.Tensor, weight: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Each expert's rows times its weight [E, N, K], transposed without a copy."""
    (result,) = operator("npu_grouped_matmul")(
        [x],
        [weight.transpose(1, 2)],
        split_item=2,
        group_type=0,
        group_list=counts,
        group_list_type=1,
        output_dtype=torch.bfloat16,
    )
    return result


def _quant_grouped(
    x: torch.Tensor,
    x_scale: torch.Tensor,
    weight: torch.Tensor,
    scale: torch.Tensor,
    counts: torch.Tensor,
) -> torch.Tensor:
    (result,) = operator("npu_grouped_matmul")(
        [x],
        [weight.transpose(1, 2)],
        scale=[scale[..., 0].to(torch.bfloat16)],  # exact: stored scales have bf16's bits
        per_token_scale=[x_scale],
        split_item=2,
        group_type=0,
        group_list=counts,
        group_list_type=1,
        output_dtype=torch.bfloat16,
    )
    return result


def _finalise(
    rows: torch.Tensor,
    place: torch.Tensor,
    ids: torch.Tensor,
    weights: torch.Tensor,
    out: torch.Tensor,
) -> None:
    """Write the weighed sum of each token's rows, in f32: the operator sums in its rows' dtype."""
    share = weights.masked_fill(ids < 0, 0)
    summed = operator("npu_moe_finalize_routing")(
        rows.float(), None, None, None, share, place, None, drop_pad_mode=2
    )
    out.copy_(summed)
