"""Latent attention over gathered cache rows, absorbed or expanded, in f32 on torch.

Knows nothing of programs. Everything here may be captured: no shape depends on data.
"""

from __future__ import annotations

import torch

from lostwax.backends.portable.kernels.blocks import dequantise
from lostwax.backends.portable.kernels.paging import (
    rows_of_one,
    rows_of_requests,
    selected_rows,
)

NEVER = float("-inf")


def head_weights(
    kv_b: torch.Tensor, scale: torch.Tensor | None, heads: int, nope: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Key weights [H, Dn, C] and value weights [H, Dv, C], f32, of kv_b [H*(Dn+Dv), C]."""
    per_head = dequantise(kv_b, scale, torch.float32).view(heads, -1, kv_b.shape[1])
    return per_head[:, :nope], per_head[:, nope:]


def absorb(q_nope: torch.Tensor, q_pe: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """[t, H, C+R]: queries as the cached rows see them."""
    latent = torch.bmm(q_nope.float().transpose(0, 1), keys).transpose(0, 1)
    return torch.cat([latent, q_pe.float()], -1)


def weighted(scores: torch.Tensor, visible: torch.Tensor | None) -> torch.Tensor:
    """Softmax over the last axis of what is visible; zeros where a row sees nothing."""
    if visible is None:
        return torch.softmax(scores, -1)
    hidden = ~visible
    return torch.softmax(scores.masked_fill_(hidden, NEVER), -1).masked_fill_(hidden, 0)


def write_heads(context: torch.Tensor, values: torch.Tensor, out: torch.Tensor) -> None:
    """Write [t, H*Dv] from contexts [t, H, C] in the latent space."""
    per_head = torch.bmm(context.transpose(0, 1), values.transpose(1, 2))
    out.view(out.shape[0], values.shape[0], -1).copy_(per_head.transpose(0, 1))


def attend_expanded_rows(
    q_nope: torch.Tensor,
    q_pe: torch.Tensor,
    expanded: torch.Tensor,
    k_pe: torch.Tensor,
    visible: torch.Tensor | None,
    scale: float,
) -> torch.Tensor:
    """[H, t, Dv]: rows against keys and values that are already per head.

    expanded [n, H, Dn+Dv], k_pe [n, R], visible [t, n] or None.
    """
    nope, heads = q_nope.shape[2], q_nope.shape[1]
    scores = torch.bmm(q_nope.transpose(0, 1), expanded[..., :nope].permute(1, 2, 0))
    scores.baddbmm_(q_pe.transpose(0, 1), k_pe.t().expand(heads, -1, -1)).mul_(scale)
    return torch.bmm(weighted(scores, visible), expanded[..., nope:].transpose(0, 1))


def _absorbed_tile(
    q: torch.Tensor, cached: torch.Tensor, visible: torch.Tensor, latent: int, scale: float
) -> torch.Tensor:
    scores = torch.bmm(q, cached.transpose(1, 2)).mul_(scale)
    return torch.bmm(weighted(scores, visible[:, None]), cached[..., :latent])


def attend_absorbed(
    q_nope: torch.Tensor,
    q_pe: torch.Tensor,
    kv_b: torch.Tensor,
    kv_b_scale: torch.Tensor | None,
    cache: torch.Tensor,
    selection: torch.Tensor,
    requests: torch.Tensor,
    page_table: torch.Tensor,
    out: torch.Tensor,
    *,
    scale: float,
    row_tile: int,
) -> None:
    """Write attention over each row's selected positions, gathering `row_tile` rows at a time."""
    keys, values = head_weights(kv_b, kv_b_scale, q_nope.shape[1], q_nope.shape[2])
    for start in range(0, q_nope.shape[0], row_tile):
        at = slice(start, start + row_tile)
        cached = selected_rows(cache, selection[at], requests[at], page_table)
        q = absorb(q_nope[at], q_pe[at], keys)
        context = _absorbed_tile(q, cached, selection[at] >= 0, kv_b.shape[1], scale)
        write_heads(context, values, out[at])


def attend_dense_absorbed(
    q_nope: torch.Tensor,
    q_pe: torch.Tensor,
    kv_b: torch.Tensor,
    kv_b_scale: torch.Tensor | None,
    cache: torch.Tensor,
    positions: torch.Tensor,
    requests: torch.Tensor,
    page_table: torch.Tensor,
    out: torch.Tensor,
    *,
    scale: float,
    limit: int,
    row_tile: int,
) -> None:
    """Write attention over each row's first `limit` visible positions."""
    keys, values = head_weights(kv_b, kv_b_scale, q_nope.shape[1], q_nope.shape[2])
    columns = _columns(cache, page_table)
    for start in range(0, q_nope.shape[0], row_tile):
        at = slice(start, start + row_tile)
        cached = rows_of_requests(cache, requests[at], page_table)
        visible = _visible(columns, positions[at], limit)
        q = absorb(q_nope[at], q_pe[at], keys)
        write_heads(_absorbed_tile(q, cached, visible, kv_b.shape[1], scale), values, out[at])


def _columns(cache: torch.Tensor, page_table: torch.Tensor) -> torch.Tensor:
    return torch.arange(page_table.shape[1] * cache.shape[1], device=cache.device)


def _visible(columns: torch.Tensor, positions: torch.Tensor, limit: int) -> torch.Tensor:
    return columns <= positions.clamp(max=limit - 1)[:, None]


def chosen_columns(selection: torch.Tensor, columns: int) -> torch.Tensor:
    """bool [t, columns]: which positions a selection [t, K] names."""
    chosen = torch.zeros(
        (selection.shape[0], columns + 1), dtype=torch.bool, device=selection.device
    )
    index = torch.where(selection < 0, columns, selection).long()  # -1 falls into a spare column
    return chosen.scatter_(1, index, True)[:, :columns]


def _expanded(
    q_nope: torch.Tensor,
    q_pe: torch.Tensor,
    kv_b: torch.Tensor,
    kv_b_scale: torch.Tensor | None,
    cache: torch.Tensor,
    seen: torch.Tensor,
    requests: torch.Tensor,
    page_table: torch.Tensor,
    out: torch.Tensor,
    scale: float,
    row_tile: int,
) -> None:
    """Every request's columns against every row, masked by `seen` [T, S] and the row's request."""
    rows, heads, latent = q_nope.shape[0], q_nope.shape[1], kv_b.shape[1]
    weight = dequantise(kv_b, kv_b_scale, torch.float32).t()
    per_head = out.view(rows, heads, -1)
    for b in range(page_table.shape[0]):
        cached = rows_of_one(cache, page_table[b])
        expanded = torch.mm(cached[:, :latent], weight).view(cached.shape[0], heads, -1)
        for start in range(0, rows, row_tile):
            at = slice(start, start + row_tile)
            mine = (requests[at] == b)[:, None]
            result = attend_expanded_rows(
                q_nope[at].float(),
                q_pe[at].float(),
                expanded,
                cached[:, latent:],
                seen[at] & mine,
                scale,
            ).transpose(0, 1)
            kept = result.to(out.dtype)
            if b:
                kept = torch.where(mine[..., None], kept, per_head[at])
            per_head[at].copy_(kept)


def attend_expanded(
    q_nope: torch.Tensor,
    q_pe: torch.Tensor,
    kv_b: torch.Tensor,
    kv_b_scale: torch.Tensor | None,
    cache: torch.Tensor,
    selection: torch.Tensor,
    requests: torch.Tensor,
    page_table: torch.Tensor,
    out: torch.Tensor,
    *,
    scale: float,
    row_tile: int,
) -> None:
    """Write attention with keys and values made per head, selected positions by mask."""
    seen = chosen_columns(selection, page_table.shape[1] * cache.shape[1])
    _expanded(
        q_nope, q_pe, kv_b, kv_b_scale, cache, seen, requests, page_table, out, scale, row_tile
    )


def attend_dense_expanded(
    q_nope: torch.Tensor,
    q_pe: torch.Tensor,
    kv_b: torch.Tensor,
    kv_b_scale: torch.Tensor | None,
    cache: torch.Tensor,
    positions: torch.Tensor,
    requests: torch.Tensor,
    page_table: torch.Tensor,
    out: torch.Tensor,
    *,
    scale: float,
    limit: int,
    row_tile: int,
) -> None:
    """Write attention over visible positions with keys and values made per head."""
    seen = _visible(_columns(cache, page_table), positions, limit)
    _expanded(
        q_nope, q_pe, kv_b, kv_b_scale, cache, seen, requests, page_table, out, scale, row_tile
    )
