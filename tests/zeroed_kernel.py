"""Products that count in a zeroed workspace: one leaves it zero, one forgets. For tests."""

from __future__ import annotations

import torch


def counted(x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor, zeroed: torch.Tensor) -> None:
    """Write x W^T; raises ValueError for a workspace that is not zero."""
    if zeroed.any():
        raise ValueError("the workspace is not zero")
    zeroed.fill_(1)
    torch.mm(x, weight.t(), out=out)
    zeroed.zero_()


def forgetful(
    x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor, zeroed: torch.Tensor
) -> None:
    """The same, but the last byte stays."""
    counted(x, weight, out, zeroed)
    zeroed[-1] = 1
