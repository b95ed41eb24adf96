"""Muon for matrices (orthogonalised momentum), batched over matrices of one shape.

Jordan et al. 2024, with the update scaled as in Moonlight (arXiv:2502.16982). Knows no model.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # quintic iteration, tuned for a steep start
STEPS = 5
MOMENTUM = 0.95
UPDATE_RMS = 0.2  # brings an update to the size of AdamW's


class Muon:
    """Parameters are matrices, or stacks of matrices that are treated one by one."""

    def __init__(self, params: Iterable[Tensor], *, lr: float, weight_decay: float) -> None:
        by_shape: dict[tuple[int, ...], list[Tensor]] = defaultdict(list)
        for param in params:
            by_shape[tuple(param.shape[-2:])].append(param)
        self._groups = [
            (group, [torch.zeros_like(p) for p in group]) for group in by_shape.values()
        ]
        self.lr, self._weight_decay = lr, weight_decay

    @torch.no_grad()
    def step(self) -> None:
        """One update from the gradients."""
        for params, momenta in self._groups:
            grads = [p.grad for p in params if p.grad is not None]
            if len(grads) != len(params):
                raise ValueError("a matrix has no gradient: it takes no part in the loss")
            torch._foreach_lerp_(momenta, grads, 1 - MOMENTUM)
            mixed = torch._foreach_lerp(grads, momenta, MOMENTUM)  # Nesterov
            stacks = [m if m.ndim == 3 else m[None] for m in mixed]
            sizes = [len(stack) for stack in stacks]
            updates = orthogonalise(torch.cat(stacks)).split(sizes)
            scale = UPDATE_RMS * max(params[0].shape[-2:]) ** 0.5
            torch._foreach_mul_(params, 1 - self.lr * self._weight_decay)
            changes = [u.view_as(p).to(p.dtype) for u, p in zip(updates, params, strict=True)]
            torch._foreach_add_(params, changes, alpha=-self.lr * scale)

    def zero_grad(self) -> None:
        """Drop the gradients."""
        for params, _ in self._groups:
            for param in params:
                param.grad = None


def orthogonalise(matrices: Tensor) -> Tensor:
    """Nearly the nearest orthogonal matrix of each: [count, rows, columns], in bf16."""
    x = matrices.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(STEPS):
        gram = x @ x.mT
        x = a * x + torch.baddbmm(b * gram, gram, gram, alpha=c) @ x
    return x.mT if tall else x
