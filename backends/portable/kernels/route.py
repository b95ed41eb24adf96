"""Expert choice (noaux_tc) on torch. Knows nothing of programs."""

from __future__ import annotations

import torch

NEVER = float("-inf")


def _best(scores: torch.Tensor, k: int) -> torch.Tensor:
    """Indexes of the k largest, descending, the lowest index first among equals."""
    return torch.sort(scores, dim=-1, descending=True, stable=True).indices[:, :k]


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
    normalise: bool,
    scale: float,
) -> None:
    """Write ids i32 and weights f32 [T, K]: chosen by biased scores, weighed by unbiased ones."""
    # torch's sigmoid rounds an element by where it stands in the tensor, exp does not
    scores = torch.exp(-logits.float()).add_(1).reciprocal_()
    biased = scores + bias
    if topk_group < n_group:
        grouped = biased.view(biased.shape[0], n_group, -1)
        best_two = grouped.topk(min(2, grouped.shape[-1]), dim=-1, sorted=False).values
        kept = _best(best_two.sum(-1), topk_group)
        dropped = torch.ones(grouped.shape[:2], dtype=torch.bool, device=logits.device)
        dropped.scatter_(1, kept, False)
        biased = grouped.masked_fill(dropped[..., None], NEVER).flatten(-2)
    chosen = _best(biased, top_k)
    gates = scores.gather(1, chosen)
    if normalise:
        gates = gates / (gates.sum(-1, keepdim=True) + 1e-20)
    padded = (positions < 0)[:, None]
    torch.mul(gates, scale, out=weights).masked_fill_(padded, 0)
    ids.copy_(chosen.masked_fill_(padded, -1))
