"""The choice of experts by AITER. **Never run on a device.**"""

from __future__ import annotations

import torch

from lostwax.backends.rocm.aiter_calls import ROUTE
from lostwax.backends.rocm.kernels.aiter_library import function, require_calls


def require_library() -> None:
    """MissingPackage unless AITER's choice takes what it is given."""
    require_calls(ROUTE)


def route(
    logits: torch.Tensor,
    bias: torch.Tensor,
    positions: torch.Tensor,
    ids: torch.Tensor,
    weights: torch.Tensor,
    *,
    n_group: int,
    topk_group: int,
    scale: float,
) -> None:
    """`biased_grouped_topk` with normalised weights; rows without a token get ids -1, weights 0.

    logits [T, E] and bias [E] f32, positions i32 [T]; ids i32 and weights f32 [T, K] are written.
    """
    padded = (positions < 0)[:, None]
    function(ROUTE)(
        gating_output=logits.masked_fill(padded, 0),  # what stands there may be NaN
        correction_bias=bias,
        topk_weights=weights,
        topk_ids=ids,
        num_expert_group=n_group,
        topk_group=topk_group,
        need_renorm=True,
        routed_scaling_factor=scale,
    )
    ids.masked_fill_(padded, -1)
    weights.masked_fill_(padded, 0)
