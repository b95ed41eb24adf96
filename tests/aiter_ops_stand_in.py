"""Stands where AITER's modules stand, on the CPU: what its functions ask, checked, then computed.

Written after the sources of amd-aiter 0.1.7: what the GPU computes is not known here. Each refuses
NaN where AITER would read it, but in rows whose results nobody reads.
"""

from __future__ import annotations

from enum import Enum

import torch
import torch.nn.functional as F

FP8 = (torch.float8_e4m3fn, torch.float8_e4m3fnuz)
BLOCK = 128


class QuantType(Enum):
    """How scales lie."""

    No = 0
    per_Tensor = 1
    per_Token = 2
    per_1x32 = 3
    per_1x128 = 4
    per_128x128 = 5


def biased_grouped_topk(
    gating_output: torch.Tensor,
    correction_bias: torch.Tensor,
    topk_weights: torch.Tensor,
    topk_ids: torch.Tensor,
    num_expert_group: int,
    topk_group: int,
    need_renorm: bool,
    routed_scaling_factor: float = 1.0,
) -> None:
    """Ids in any order: here ascending, which no caller may count on."""
    rows, experts = gating_output.shape
    assert gating_output.is_contiguous()
    assert not gating_output.isnan().any()
    assert gating_output.dtype == correction_bias.dtype == topk_weights.dtype == torch.float32
    assert topk_ids.dtype == torch.int32
    assert correction_bias.shape == (experts,)
    assert topk_ids.shape == topk_weights.shape
    assert num_expert_group in (1, 2, 4, 8)
    assert experts % num_expert_group == 0
    assert topk_ids.stride(0) == topk_weights.stride(0)
    assert need_renorm
    scores = gating_output.sigmoid()
    biased = (scores + correction_bias).view(rows, num_expert_group, -1)
    kept = biased.topk(2).values.sum(-1).topk(topk_group).indices
    allowed = torch.full_like(biased, float("-inf"))
    for row in range(rows):
        allowed[row, kept[row]] = biased[row, kept[row]]
    chosen = allowed.view(rows, experts).topk(topk_ids.shape[1]).indices.sort().values
    gates = scores.gather(1, chosen)
    topk_ids.copy_(chosen)
    topk_weights.copy_(gates / gates.sum(-1, keepdim=True) * routed_scaling_factor)


def _widened(x: torch.Tensor, scales: torch.Tensor, rows: int) -> torch.Tensor:
    """x [..., R, C] times scales [..., R / rows, C / 128]."""
    wide = scales.repeat_interleave(rows, -2).repeat_interleave(BLOCK, -1)
    assert wide.shape == x.shape, "scales do not lie in blocks of the values"
    return x.float() * wide


def _in_rows(shuffled: torch.Tensor) -> torch.Tensor:
    """[E, N, K] out of tiles of 16 rows and 32 columns, each two tiles of 16 by 16."""
    count, n, k = shuffled.shape
    tiles = shuffled.view(torch.uint8).view(count, n // 16, k // 32, 2, 16, 16)
    return tiles.permute(0, 1, 4, 2, 3, 5).reshape(count, n, k).view(shuffled.dtype)


def fused_moe(
    hidden_states: torch.Tensor,
    w1: torch.Tensor,
    w2: torch.Tensor,
    topk_weight: torch.Tensor,
    topk_ids: torch.Tensor,
    expert_mask: torch.Tensor | None = None,
    activation: object = None,
    quant_type: QuantType = QuantType.No,
    doweight_stage1: bool = False,
    w1_scale: torch.Tensor | None = None,
    w2_scale: torch.Tensor | None = None,
    a1_scale: torch.Tensor | None = None,
    a2_scale: torch.Tensor | None = None,
    block_size_M: int | None = None,
    num_local_tokens: torch.Tensor | None = None,
    moe_sorting_dispatch_policy: int = 0,
    dtype: torch.dtype | None = None,
    hidden_pad: int = 0,
    intermediate_pad: int = 0,
    bias1: torch.Tensor | None = None,
    bias2: torch.Tensor | None = None,
) -> torch.Tensor:
    """hidden_states [T, D], w1 [E, 2 I, D] and w2 [E, D, I] in its shuffled layout."""
    (rows, dim), (experts, double, _) = hidden_states.shape, w1.shape
    assert quant_type is QuantType.per_1x128
    assert w1_scale is not None
    assert w2_scale is not None
    assert a1_scale is not None
    assert dtype is torch.bfloat16, "its result would have the rows' fp8"
    assert hidden_states.dtype == w1.dtype == w2.dtype
    assert w1.dtype in FP8
    assert double % 512 == 0, "its two-stage way takes scales transposed that were made before"
    assert w1.shape == (experts, double, dim)
    assert w2.shape == (experts, dim, double // 2)
    assert a1_scale.shape == (rows, dim // BLOCK)
    every = (hidden_states, w1, w2, w1_scale, w2_scale, a1_scale, topk_ids, topk_weight)
    assert all(each.is_contiguous() for each in every)
    assert topk_ids.dtype == torch.int32
    assert topk_weight.dtype == torch.float32
    assert ((topk_ids >= 0) & (topk_ids < experts)).all(), "an expert that is none"
    x = _widened(hidden_states, a1_scale, 1)
    first = _widened(_in_rows(w1), w1_scale, BLOCK)
    second = _widened(_in_rows(w2), w2_scale, BLOCK)
    out = torch.zeros(rows, dim)
    largest = torch.finfo(w1.dtype).max
    for row in range(rows):
        for expert, weight in zip(topk_ids[row].tolist(), topk_weight[row].tolist(), strict=True):
            gate, up = (x[row] @ first[expert].T).chunk(2)
            hidden = (F.silu(gate) * up).bfloat16().float().view(-1, BLOCK)
            scale = hidden.abs().amax(-1, keepdim=True) / largest
            rounded = (hidden / scale).to(w1.dtype).float() * scale
            out[row] += weight * (rounded.flatten() @ second[expert].T)
    return out.to(dtype)


def fused_rms_fp8_group_quant(
    inp1: torch.Tensor,
    inp1_weight: torch.Tensor,
    inp1_epsilon: float,
    inp2: torch.Tensor | None = None,
    inp2_weight: torch.Tensor | None = None,
    inp2_epsilon: float | None = None,
    group_size: int = 128,
    dtype_quant: torch.dtype = torch.float8_e4m3fn,
    res1: torch.Tensor | None = None,
    output_unquantized_inp1: bool = False,
    transpose_scale: bool = False,
) -> tuple[tuple[torch.Tensor, torch.Tensor], None, None, None]:
    """inp1 [T, D]: values [T, D] and scales [T, D / group_size], the sums never rounded between."""
    assert inp1.dim() == 2
    assert inp1_weight.shape == inp1.shape[1:]
    assert group_size == BLOCK
    assert dtype_quant in FP8
    x = inp1.float()
    normed = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + inp1_epsilon) * inp1_weight.float()
    blocks = normed.view(len(x), -1, group_size)
    scale = blocks.abs().amax(-1, keepdim=True).clamp(min=1e-10) / torch.finfo(dtype_quant).max
    return ((blocks / scale).view_as(x).to(dtype_quant), scale[..., 0]), None, None, None


def deepgemm_fp8_paged_mqa_logits(
    q_fp8: torch.Tensor,
    kv_cache_fp8: torch.Tensor,
    weights: torch.Tensor,
    out_logits: torch.Tensor,
    context_lens: torch.Tensor,
    kv_indices: torch.Tensor,
    max_model_len: int,
    ChunkK: int = 64,
    SplitKV: int = 5,
) -> None:
    """q_fp8 [B, 1, H, 128], kv_cache_fp8 u8 [pages, 1, 1, 132]; out_logits [B, most] f32: whole
    chunks are written. Behind what a row sees stands -inf, but for the first place: that has NaN
    here, as there it has what a key of zeros with the scale of slot 0 gives."""
    batch, next_n, heads, dim = q_fp8.shape
    pages, tokens, kv_heads, row_bytes = kv_cache_fp8.shape
    assert (next_n, tokens, kv_heads, row_bytes) == (1, 1, 1, dim + 4)
    assert q_fp8.dtype in FP8
    assert kv_cache_fp8.is_contiguous()
    assert weights.shape == (batch, heads)
    assert weights.dtype == out_logits.dtype == torch.float32
    assert weights.is_contiguous()
    assert context_lens.dtype == kv_indices.dtype == torch.int32
    assert kv_indices.is_contiguous()
    assert kv_indices.shape[0] == context_lens.shape[0] == batch
    assert (context_lens >= 0).all()
    assert (context_lens <= max_model_len).all()
    assert max_model_len == out_logits.shape[1]
    assert max_model_len % ChunkK == 0, "it would write into the next row"
    rows = kv_cache_fp8.view(pages, row_bytes)
    for each, length in enumerate(context_lens.tolist()):
        own = kv_indices[each, :length].long()
        assert ((own >= 0) & (own < pages)).all(), "a slot that is none"
        keys = rows[own, :dim].contiguous().view(q_fp8.dtype).float()
        scale = rows[own, dim:].contiguous().view(torch.float32)[:, 0]
        scores = (q_fp8[each, 0].float() @ keys.T * scale).relu()
        out_logits[each, :length] = weights[each] @ scores
        reach = -(-length // ChunkK) * ChunkK
        out_logits[each, length:reach] = float("-inf")
        if length < reach:
            out_logits[each, length] = float("nan")
