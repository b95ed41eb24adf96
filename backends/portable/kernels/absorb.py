"""The two small products around absorbed MLA, on torch's batched GEMM. Know no program, no step."""

from __future__ import annotations

import torch


def absorb_query(q_nope: torch.Tensor, kv_b: torch.Tensor, out: torch.Tensor) -> None:
    """out[h, t] = q_nope[t, h] W_k,h: into the latent space, not rounded through the inputs' dtype.

    q_nope: [T, H, Dn], kv_b: [H * (Dn + Dv), C] of one dtype, out: [H, T, C], maybe f32.
    """
    _, heads, nope = q_nope.shape
    keys = kv_b.view(heads, -1, kv_b.shape[1])[:, :nope]
    query = q_nope.transpose(0, 1)
    torch.bmm(query.to(out.dtype), keys.to(out.dtype), out=out)


def expand_values(latent: torch.Tensor, kv_b: torch.Tensor, out: torch.Tensor) -> None:
    """out[t, h] = latent[h, t] W_v,h^T: out of the latent space.

    latent: [H, T, C], kv_b: [H * (Dn + Dv), C], out: [T, H * Dv].
    """
    heads, rows, rank = latent.shape
    width = out.shape[1] // heads
    values = kv_b.view(heads, -1, rank)[:, -width:]
    result = out.view(rows, heads, width).transpose(0, 1)
    torch.bmm(latent, values.transpose(1, 2), out=result)
