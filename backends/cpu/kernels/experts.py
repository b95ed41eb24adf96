"""Routed experts, each over its own rows. Reads the routing on the host, knows no program."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F

from lostwax.backends.portable.kernels.blocks import dequantise
from lostwax.backends.portable.kernels.fp8 import rounded, widen
from lostwax.ir.contract.scale_layout import FP8_BLOCK

Hidden = Callable[[torch.Tensor, int], torch.Tensor]
Product = Callable[[torch.Tensor, int], torch.Tensor]


def by_expert(
    x: torch.Tensor,
    ids: torch.Tensor,
    weights: torch.Tensor,
    experts: int,
    out: torch.Tensor,
    hidden: Hidden,
    down: Product,
) -> None:
    """Write the weighted sum over choices, rows sorted by expert; ids -1 come first, unused."""
    top_k = ids.shape[1]
    flat = ids.flatten()
    order = torch.argsort(flat, stable=True)
    counts = cast("list[int]", torch.bincount(flat + 1, minlength=experts + 1).tolist())
    order = order[counts[0] :]
    rows = order // top_k
    share = weights.flatten().index_select(0, order)[:, None]
    sorted_x = x.index_select(0, rows)
    results = torch.empty((rows.shape[0], x.shape[1]))
    start = 0
    for e, count in enumerate(counts[1:]):
        if count:
            stop = start + count
            results[start:stop] = down(hidden(sorted_x[start:stop], e), e)
            start = stop
    total = torch.zeros(out.shape) if out.dtype != torch.float32 else out.zero_()
    total.index_add_(0, rows, results.mul_(share))
    if total is not out:
        out.copy_(total)


def _one_row(
    x: torch.Tensor,
    ids: torch.Tensor,
    weights: torch.Tensor,
    out: torch.Tensor,
    hidden: Hidden,
    down: Product,
) -> None:
    total = torch.zeros(out.shape) if out.dtype != torch.float32 else out.zero_()
    chosen = cast("list[int]", ids[0].tolist())
    shares = cast("list[float]", weights[0].tolist())
    for e, share in zip(chosen, shares, strict=True):
        if e >= 0:
            total.add_(down(hidden(x, e), e), alpha=share)
    if total is not out:
        out.copy_(total)


def _run(
    x: torch.Tensor,
    ids: torch.Tensor,
    weights: torch.Tensor,
    experts: int,
    out: torch.Tensor,
    hidden: Hidden,
    down: Product,
) -> None:
    if x.shape[0] == 1:
        _one_row(x, ids, weights, out, hidden, down)
    else:
        by_expert(x, ids, weights, experts, out, hidden, down)


def experts_fused(
    x: torch.Tensor,
    ids: torch.Tensor,
    weights: torch.Tensor,
    gate_up: torch.Tensor,
    down: torch.Tensor,
    out: torch.Tensor,
) -> None:
    """gate_up [E, 2 I, D] holds gate's rows, then up's; down [E, D, I]; any strides, x's dtype."""
    half = gate_up.shape[1] // 2

    def hidden(rows: torch.Tensor, e: int) -> torch.Tensor:
        both = torch.mm(rows, gate_up[e].t())
        return F.silu(both[:, :half]).mul_(both[:, half:])

    def product(rows: torch.Tensor, e: int) -> torch.Tensor:
        return torch.mm(rows, down[e].t())

    _run(x, ids, weights, gate_up.shape[0], out, hidden, product)


def experts_apart(
    x: torch.Tensor,
    x_scale: torch.Tensor | None,
    ids: torch.Tensor,
    weights: torch.Tensor,
    gate: torch.Tensor,
    gate_scale: torch.Tensor | None,
    up: torch.Tensor,
    up_scale: torch.Tensor | None,
    down: torch.Tensor,
    down_scale: torch.Tensor | None,
    out: torch.Tensor,
    *,
    hidden_fmt: str = "",
) -> None:
    """Any stored format, in f32: the weights of the experts that are used are converted."""
    wide = widen(x, x_scale)

    def times(rows: torch.Tensor, w: torch.Tensor, s: torch.Tensor | None, e: int) -> torch.Tensor:
        wide = dequantise(w[e], None if s is None else s[e], torch.float32)
        return torch.mm(rows, wide.t())

    def hidden(rows: torch.Tensor, e: int) -> torch.Tensor:
        return F.silu(times(rows, gate, gate_scale, e)).mul_(times(rows, up, up_scale, e))

    def product(rows: torch.Tensor, e: int) -> torch.Tensor:
        return times(rounded(rows, x.dtype, hidden_fmt, FP8_BLOCK), down, down_scale, e)

    _run(wide, ids, weights, gate.shape[0], out, hidden, product)
