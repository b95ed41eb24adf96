"""The orthogonal Hadamard rotation on torch. Knows nothing of programs."""

from __future__ import annotations

import torch


def signs(out: torch.Tensor) -> None:
    """Write Sylvester's H [D, D] of +-1 in f32: once a step, read by every layer."""
    out[:1, :1].fill_(1.0)
    have = 1
    while have < out.shape[0]:
        known = out[:have, :have]
        out[:have, have : 2 * have].copy_(known)
        out[have : 2 * have, :have].copy_(known)
        torch.neg(known, out=out[have : 2 * have, have : 2 * have])
        have *= 2


def hadamard(x: torch.Tensor, signs: torch.Tensor, out: torch.Tensor) -> None:
    """Write x H / sqrt(D) over the last axis: exact signs first, one scaling, one rounding."""
    width = x.shape[-1]
    rotated = torch.mm(x.reshape(-1, width).float(), signs).mul_(width**-0.5)
    out.copy_(rotated.view(x.shape))
