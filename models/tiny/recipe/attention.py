"""Attention over packs: dense, or over what an indexer selects, and the indexer's loss.

Tensors are [packs, heads, length, width]; scores are written out, since the indexer's loss needs
them (DeepSeek-V3.2 report, section 2.1: KL to the attention of all heads, summed and normalised).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

_KERNELS = [SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


def causal(length: int, device: torch.device) -> Tensor:
    """[length, length], true where a query may look."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()


def dense_attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Causal attention by the library's fused kernels: cuDNN's takes q and v of unequal width."""
    with sdpa_kernel(_KERNELS, set_priority=True):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)


def index_logits(q: Tensor, k: Tensor, weights: Tensor, seen: Tensor) -> Tensor:
    """I[t, s] = sum over heads of w relu(q k), -inf where not seen: [packs, length, length].

    q: [packs, heads, length, dim], k: [packs, length, dim], weights: [packs, length, heads].
    """
    products = (q @ k[:, None].transpose(-1, -2)).relu()
    logits = (products * weights.transpose(1, 2)[..., None]).sum(1)
    return logits.masked_fill(~seen, -torch.inf)


def select(logits: Tensor, count: int, seen: Tensor) -> Tensor:
    """Which keys each query attends to: its `count` best."""
    best = logits.detach().topk(min(count, logits.shape[-1]), -1, sorted=False).indices
    return torch.zeros_like(logits, dtype=torch.bool).scatter_(-1, best, True) & seen


def probabilities(q: Tensor, k: Tensor, selected: Tensor, scale: float) -> Tensor:
    """Softmax over the selected keys, fp32 at least: [packs, heads, length, length]."""
    scores = q @ k.transpose(-1, -2)
    wide = scores.to(torch.promote_types(scores.dtype, torch.float32)) * scale
    return wide.masked_fill(~selected[:, None], -torch.inf).softmax(-1)


def index_loss(target: Tensor, logits: Tensor, selected: Tensor) -> Tensor:
    """Mean KL(target ‖ softmax of logits) over the selected keys. target: [packs, len, len]."""
    log_q = logits.masked_fill(~selected, -torch.inf).log_softmax(-1)
    gap = (target + 1e-9).log() - log_q.masked_fill(~selected, 0.0)
    return (target * gap).sum(-1).mean()


def sparse_attention(
    q: Tensor, k: Tensor, v: Tensor, logits: Tensor, selected: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """Attention over the selected keys, and the indexer's loss over them."""
    p = probabilities(q, k, selected, scale)
    loss = index_loss(p.detach().mean(1), logits, selected)
    return p.to(v.dtype) @ v, loss


def dense_index_loss(q: Tensor, k: Tensor, logits: Tensor, seen: Tensor, scale: float) -> Tensor:
    """The warm-up's loss: against dense attention, all that is seen."""
    selected = seen.expand_as(logits)
    with torch.no_grad():
        target = probabilities(q, k, selected, scale).mean(1)
    return index_loss(target, logits, selected)
