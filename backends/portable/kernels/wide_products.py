"""Products of half precision that leave in f32, unrounded: torch has them on GPUs only.

Each does what a function of `linear.py` or `absorb.py` does by converting first. Knows no program.
"""

from __future__ import annotations

import torch


def linear(x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor) -> None:
    """Write x W^T: x [T, K] and weight [N, K] (any strides) of one dtype, out f32 [T, N]."""
    torch.mm(x, weight.t(), out_dtype=torch.float32, out=out)


def absorb_query(q_nope: torch.Tensor, kv_b: torch.Tensor, out: torch.Tensor) -> None:
    """out[h, t] = q_nope[t, h] W_k,h: q_nope [T, H, Dn] and kv_b [H * (Dn + Dv), C] of one dtype,
    out f32 [H, T, C]."""
    _, heads, nope = q_nope.shape
    keys = kv_b.view(heads, -1, kv_b.shape[1])[:, :nope]
    torch.bmm(q_nope.transpose(0, 1), keys, out_dtype=torch.float32, out=out)
