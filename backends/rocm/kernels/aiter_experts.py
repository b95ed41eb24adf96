"""Routed experts by AITER. **Never run on a device.**"""

from __future__ import annotations

import torch

from lostwax.backends.rocm.aiter_calls import EXPERTS
from lostwax.backends.rocm.kernels.aiter_library import (
    function,
    require_calls,
    scales_in_blocks,
)


def require_library() -> None:
    """MissingPackage unless AITER's experts take what they are given."""
    require_calls(EXPERTS)


def experts(
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
    """`fused_moe` of fp8 rows with scales in blocks of 128, weights in tiles of 16 by 16.

    x fp8 [T, D], x_scale f32 [T, D / 128], ids i32 and weights f32 [T, K], gate_up fp8 [E, 2 I /
    16, D / 16, 16, 16], down [E, D / 16, I / 16, 16, 16] with their f32 scales [E, 2 I / 128,
    D / 128], [E, D / 128, I / 128]; out bf16 [T, D] is written. Of a choice -1 expert 0 gets
    weight 0.
    """
    unused = ids < 0
    count, dim, inner = gate_up.shape[0], x.shape[1], down.shape[2] * down.shape[4]
    out.copy_(
        function(EXPERTS)(
            hidden_states=x,
            w1=gate_up.view(count, 2 * inner, dim),
            w2=down.view(count, dim, inner),
            topk_weight=weights.masked_fill(unused, 0),
            topk_ids=ids.masked_fill(unused, 0),
            quant_type=scales_in_blocks(),
            w1_scale=gate_up_scale,
            w2_scale=down_scale,
            a1_scale=x_scale,
            dtype=torch.bfloat16,
        )
    )
