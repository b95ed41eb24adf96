"""Routed experts with shapes that do not depend on the routing, so that they can be captured.

Knows nothing of programs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from lostwax.backends.portable.kernels.blocks import dequantise
from lostwax.backends.portable.kernels.fp8 import rounded, widen
from lostwax.ir.contract.scale_layout import FP8_BLOCK


def experts_gather(
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
    pair_tile: int,
    hidden_fmt: str = "",
) -> None:
    """Gather the weights of every (row, choice) pair, `pair_tile` pairs at a time. For few rows."""
    top_k = ids.shape[1]
    flat = ids.flatten()
    share, unused = weights.flatten()[:, None], (flat < 0)[:, None]
    index = flat.clamp(min=0)
    total = torch.zeros(out.shape, dtype=torch.float32, device=x.device)
    wide = widen(x, x_scale).repeat_interleave(top_k, 0)[..., None]  # [T*K, D, 1]
    owner = torch.arange(flat.shape[0], device=x.device) // top_k

    def chosen(w: torch.Tensor, scale: torch.Tensor | None, e: torch.Tensor) -> torch.Tensor:
        kept = w.index_select(0, e) if scale is None else _select_bytes(w, e)
        return dequantise(kept, None if scale is None else scale.index_select(0, e), torch.float32)

    for start in range(0, flat.shape[0], pair_tile):
        at = slice(start, start + pair_tile)
        e = index[at]
        hidden = F.silu(torch.bmm(chosen(gate, gate_scale, e), wide[at]))
        hidden = hidden * torch.bmm(chosen(up, up_scale, e), wide[at])
        entering = rounded(hidden[..., 0], x.dtype, hidden_fmt, FP8_BLOCK)[..., None]
        result = torch.bmm(chosen(down, down_scale, e), entering)[..., 0]
        total = _add_rows(total, owner[at], (result * share[at]).masked_fill_(unused[at], 0))
    out.copy_(total)


def _select_bytes(w: torch.Tensor, e: torch.Tensor) -> torch.Tensor:
    """index_select for one-byte floats, which torch does not index."""
    return w.view(torch.uint8).index_select(0, e).view(w.dtype)


def _add_rows(total: torch.Tensor, owner: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """total[owner[i]] += rows[i] as a product with a 0/1 matrix: no atomics, a fixed order."""
    place = torch.arange(total.shape[0], device=total.device)[:, None] == owner
    return torch.addmm(total, place.float(), rows)


def experts_dense(
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
    """Every row through every expert, weighed by 0 where it was not chosen. For many rows."""
    experts = gate.shape[0]
    share = torch.zeros((x.shape[0], experts + 1), dtype=torch.float32, device=x.device)
    index = torch.where(ids < 0, experts, ids).long()  # -1 falls into a spare expert
    share.scatter_(1, index, weights)
    wide = widen(x, x_scale)
    total = torch.zeros(out.shape, dtype=torch.float32, device=x.device)

    def expert(w: torch.Tensor, scale: torch.Tensor | None, e: int) -> torch.Tensor:
        return dequantise(w[e], None if scale is None else scale[e], torch.float32).t()

    for e in range(experts):
        hidden = F.silu(torch.mm(wide, expert(gate, gate_scale, e)))
        hidden = hidden * torch.mm(wide, expert(up, up_scale, e))
        hidden = rounded(hidden, x.dtype, hidden_fmt, FP8_BLOCK) * share[:, e : e + 1]
        total.addmm_(hidden, expert(down, down_scale, e))
    out.copy_(total)
