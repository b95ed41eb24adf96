"""The differentiable forward: pure functions of tensors, one a compiled piece. Knows no optimiser.

Everything but attention works on tokens side by side ([tokens, …]), so that one compiled function
serves packs of any length. `dtype` is that of products: bf16 when training, fp32 in tests.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from recipe.shape import Shape
from recipe.weights import Layer

K_NORM_EPS = 1e-6  # hard-coded in the official code, as the latent norms'


def rms(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMSNorm in the precision of x."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight


def project(x: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
    """A product in `dtype`."""
    return F.linear(x.to(dtype), weight.to(dtype))


def rotate_pairs(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """RoPE over neighbours (x0, x1), (x2, x3) …; x: [tokens, heads, rope]."""
    even, odd = x.unflatten(-1, (-1, 2)).to(cos.dtype).unbind(-1)
    cos, sin = cos[:, None], sin[:, None]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2).to(x.dtype)


def rotate_halves(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """RoPE over (x_i, x_{i + rope/2}) of the first `rope` dimensions; x: [tokens, heads, dim]."""
    half = cos.shape[-1]
    a, b, rest = x.to(cos.dtype).split([half, half, x.shape[-1] - 2 * half], -1)
    cos, sin = cos[:, None], sin[:, None]
    return torch.cat((a * cos - b * sin, a * sin + b * cos, rest), -1).to(x.dtype)


def attention_inputs(
    s: Shape, layer: Layer, x: Tensor, cos: Tensor, sin: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """q, k [tokens, heads, nope + rope], v [tokens, heads, v]; normed input and query latent."""
    return _attention_inputs(
        s, x, cos, sin, dtype, layer.input_layernorm, layer.q_a_proj, layer.q_a_layernorm,
        layer.q_b_proj, layer.kv_a_proj, layer.kv_a_layernorm, layer.kv_b_proj,
    )  # fmt: skip


def _attention_inputs(
    s: Shape, x: Tensor, cos: Tensor, sin: Tensor, dtype: torch.dtype, norm: Tensor, q_a: Tensor,
    q_norm: Tensor, q_b: Tensor, kv_a: Tensor, kv_norm: Tensor, kv_b: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    heads, nope, rope, value = (
        s.num_attention_heads, s.qk_nope_head_dim, s.qk_rope_head_dim, s.v_head_dim,
    )  # fmt: skip
    normed = rms(x, norm, s.rms_norm_eps)
    latent = rms(project(normed, q_a, dtype).to(x.dtype), q_norm, s.rms_norm_eps)
    q = project(latent, q_b, dtype).unflatten(-1, (heads, nope + rope))
    q_nope, q_pe = q.split([nope, rope], -1)
    c, k_pe = project(normed, kv_a, dtype).split([s.kv_lora_rank, rope], -1)
    c = rms(c.to(x.dtype), kv_norm, s.rms_norm_eps)
    k_nope, v = (
        project(c, kv_b, dtype).unflatten(-1, (heads, nope + value)).split([nope, value], -1)
    )
    k_pe = rotate_pairs(k_pe[:, None], cos, sin).expand(-1, heads, -1)
    q = torch.cat((q_nope, rotate_pairs(q_pe, cos, sin)), -1)
    return q, torch.cat((k_nope, k_pe), -1), v.contiguous(), normed, latent


def index_inputs(
    s: Shape, layer: Layer, normed: Tensor, latent: Tensor, cos: Tensor, sin: Tensor,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Indexer queries [tokens, heads, dim], keys [tokens, dim], head weights [tokens, heads].

    Both inputs are detached: the indexer learns from its own loss, the model never through it.
    """
    normed, latent = normed.detach(), latent.detach()
    q = project(latent, layer.index_wq_b, dtype).unflatten(-1, (s.index_n_heads, -1))
    k = project(normed, layer.index_wk, dtype).to(normed.dtype)
    k = F.layer_norm(k, k.shape[-1:], layer.index_k_norm, layer.index_k_bias, K_NORM_EPS)
    weights = F.linear(normed, layer.index_weights_proj) * s.index_scale
    k = rotate_halves(k[:, None].to(dtype), cos, sin)[:, 0]
    return rotate_halves(q, cos, sin), k, weights


def dense_mlp(s: Shape, layer: Layer, x: Tensor, attended: Tensor, dtype: torch.dtype) -> Tensor:
    """Output projection, residual, and a dense layer's MLP."""
    x = x + project(attended, layer.o_proj, dtype).to(x.dtype)
    normed = rms(x, layer.post_attention_layernorm, s.rms_norm_eps)
    hidden = F.silu(project(normed, layer.gate_proj, dtype)) * project(normed, layer.up_proj, dtype)
    return x + project(hidden, layer.down_proj, dtype).to(x.dtype)


def experts(
    s: Shape, layer: Layer, x: Tensor, attended: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Output projection, residual, and experts as one wide MLP; also each expert's share of tokens.

    Hidden values of experts that a token does not use are multiplied by zero: at this size cheaper
    than sorting tokens by expert, and exact.
    """
    x = x + project(attended, layer.o_proj, dtype).to(x.dtype)
    normed = rms(x, layer.post_attention_layernorm, s.rms_norm_eps)
    weights = route(s, F.linear(normed, layer.router), layer.router_bias)
    shared = weights.new_ones(len(weights), s.n_shared_experts)
    gate, up = layer.gate_proj.flatten(0, 1), layer.up_proj.flatten(0, 1)
    hidden = F.silu(project(normed, gate, dtype)) * project(normed, up, dtype)
    scaled = hidden.unflatten(-1, (s.experts, -1)) * torch.cat((weights, shared), -1)[..., None]
    down = layer.down_proj.transpose(0, 1).flatten(1)
    out = project(scaled.flatten(-2), down, dtype)
    return x + out.to(x.dtype), (weights > 0).to(x.dtype).mean(0)


def route(s: Shape, logits: Tensor, bias: Tensor) -> Tensor:
    """Weight of each routed expert [tokens, experts], zero where it is not chosen."""
    scores = logits.sigmoid()
    biased = (scores + bias).detach()
    grouped = biased.unflatten(-1, (s.n_group, -1))
    best = grouped.topk(2, -1).values.sum(-1).topk(s.topk_group, -1).indices
    kept = torch.zeros_like(grouped[..., 0]).scatter_(-1, best, 1.0) > 0
    allowed = grouped.masked_fill(~kept[..., None], -torch.inf).flatten(-2)
    chosen = allowed.topk(s.num_experts_per_tok, -1).indices
    weights = torch.zeros_like(scores).scatter(-1, chosen, scores.gather(-1, chosen))
    return weights / weights.sum(-1, keepdim=True) * s.routed_scaling_factor


def mtp_input(
    s: Shape, hidden: Tensor, embedded: Tensor, norms: tuple[Tensor, Tensor], eh_proj: Tensor,
    dtype: torch.dtype,
) -> Tensor:  # fmt: skip
    """u_i = eh_proj [enorm(embedding of token i+1) ‖ hnorm(final normed hidden of i)]."""
    e, h = rms(embedded, norms[0], s.rms_norm_eps), rms(hidden, norms[1], s.rms_norm_eps)
    return project(torch.cat((e, h), -1), eh_proj, dtype).to(hidden.dtype)


def token_loss(
    hidden: Tensor, head: Tensor, targets: Tensor, weights: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Weighted mean cross-entropy, and the mean over targets of weight 1 (completions) alone."""
    losses = F.cross_entropy(project(hidden, head, dtype).float(), targets, reduction="none")
    written = (weights == 1).float()
    mean = (losses * weights).sum() / weights.sum().clamp(min=1)
    return mean, (losses.detach() * written).sum() / written.sum().clamp(min=1)
