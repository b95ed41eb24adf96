"""Latent attention over gathered cache rows, absorbed or expanded, in f32 on torch.

Knows nothing of programs. Everything here may be captured: no shape depends on data.
"""

from __future__ import annotations

import torch

from lostwax.backends.portable.kernels.blocks import dequantise
from lostwax.backends.portable.kernels.paging import (
    CachedRows,
    cached_rows,
    rows_of_one,
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


def bias_of(visible: torch.Tensor) -> torch.Tensor:
    """0 where visible, else -inf: added to scores by the product itself, at no pass of its own."""
    return torch.where(visible, 0.0, NEVER)


def write_heads(context: torch.Tensor, values: torch.Tensor, out: torch.Tensor) -> None:
    """Write [t, H*Dv] from contexts [t, H, C] in the latent space."""
    per_head = torch.bmm(context.transpose(0, 1), values.transpose(1, 2))
    out.view(out.shape[0], values.shape[0], -1).copy_(per_head.transpose(0, 1))


def attend_expanded_rows(
    q_nope: torch.Tensor,
    q_pe: torch.Tensor,
    expanded: torch.Tensor,
    k_pe: torch.Tensor,
    bias: torch.Tensor,
    scale: float,
) -> torch.Tensor:
    """[H, t, Dv]: rows against keys and values that are already per head; NaN where all is hidden.

    expanded [n, H, Dn+Dv], k_pe [n, R], bias [t, n].
    """
    nope, heads = q_nope.shape[2], q_nope.shape[1]
    keys = expanded[..., :nope].permute(1, 2, 0)
    hidden = bias.expand(heads, -1, -1)
    scores = torch.baddbmm(hidden, q_nope.transpose(0, 1), keys, alpha=scale)
    scores.baddbmm_(q_pe.transpose(0, 1), k_pe.t().expand(heads, -1, -1), alpha=scale)
    return torch.bmm(torch.softmax(scores, -1), expanded[..., nope:].transpose(0, 1))


def _absorbed_tile(
    q: torch.Tensor, cached: torch.Tensor, bias: torch.Tensor, latent: int, scale: float
) -> torch.Tensor:
    hidden = bias[:, None].expand(-1, q.shape[1], -1)
    scores = torch.baddbmm(hidden, q, cached.transpose(1, 2), alpha=scale)
    return torch.bmm(torch.softmax(scores, -1), cached[..., :latent])


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
    layout: str,
) -> None:
    """Write attention over each row's selected positions, gathering `row_tile` rows at a time."""
    keys, values = head_weights(kv_b, kv_b_scale, q_nope.shape[1], q_nope.shape[2])
    stored = cached_rows(cache, layout, (kv_b.shape[1], q_pe.shape[2]))
    for start in range(0, q_nope.shape[0], row_tile):
        at = slice(start, start + row_tile)
        cached = selected_rows(stored, selection[at], requests[at], page_table)
        q = absorb(q_nope[at], q_pe[at], keys)
        bias = bias_of(selection[at] >= 0)
        write_heads(_absorbed_tile(q, cached, bias, kv_b.shape[1], scale), values, out[at])
    out.masked_fill_(selection[:, :1] < 0, 0)


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
    layout: str,
) -> None:
    """Write attention over each row's first `limit` visible positions.

    Hidden columns read position 0: what their own places hold is undefined.
    """
    keys, values = head_weights(kv_b, kv_b_scale, q_nope.shape[1], q_nope.shape[2])
    stored = cached_rows(cache, layout, (kv_b.shape[1], q_pe.shape[2]))
    page_table = _first_pages(page_table, limit, stored)
    columns = _columns(stored, page_table)
    for start in range(0, q_nope.shape[0], row_tile):
        at = slice(start, start + row_tile)
        visible = _visible(columns, positions[at], limit)
        cached = selected_rows(stored, columns * visible, requests[at], page_table)
        q = absorb(q_nope[at], q_pe[at], keys)
        tile = _absorbed_tile(q, cached, bias_of(visible), kv_b.shape[1], scale)
        write_heads(tile, values, out[at])


def _first_pages(page_table: torch.Tensor, limit: int, cache: CachedRows) -> torch.Tensor:
    """The pages that hold the first `limit` positions: a bucket may have room for more."""
    return page_table[:, : -(-limit // cache.page_tokens)]


def _columns(cache: CachedRows, page_table: torch.Tensor) -> torch.Tensor:
    return torch.arange(page_table.shape[1] * cache.page_tokens, device=page_table.device)


def _visible(columns: torch.Tensor, positions: torch.Tensor, limit: int) -> torch.Tensor:
    return columns <= positions.clamp(max=limit - 1)[:, None]


def bias_of_chosen(selection: torch.Tensor, columns: int) -> torch.Tensor:
    """f32 [t, columns]: 0 at the positions that a selection [t, K] names, -inf elsewhere."""
    bias = torch.full((selection.shape[0], columns + 1), NEVER, device=selection.device)
    index = torch.where(selection < 0, columns, selection).long()  # -1 falls into a spare column
    return bias.scatter_(1, index, 0.0)[:, :columns]


def _expanded(
    q_nope: torch.Tensor,
    q_pe: torch.Tensor,
    kv_b: torch.Tensor,
    kv_b_scale: torch.Tensor | None,
    cache: CachedRows,
    bias: torch.Tensor,
    positions: torch.Tensor,
    requests: torch.Tensor,
    page_table: torch.Tensor,
    out: torch.Tensor,
    scale: float,
    row_tile: int,
) -> None:
    """Every request's columns against every row under `bias` [T, S]; each row keeps its own.

    Columns behind a request's last row count as zeros: what they hold is undefined.
    """
    rows, heads, latent = q_nope.shape[0], q_nope.shape[1], kv_b.shape[1]
    weight = dequantise(kv_b, kv_b_scale, torch.float32).t()
    per_head = out.view(rows, heads, -1)
    columns = _columns(cache, page_table)[:, None]
    for b in range(page_table.shape[0]):
        last = torch.where(requests == b, positions, -1).amax()
        cached = rows_of_one(cache, page_table[b]).masked_fill_(columns > last, 0)
        expanded = torch.mm(cached[:, :latent], weight).view(cached.shape[0], heads, -1)
        for start in range(0, rows, row_tile):
            at = slice(start, start + row_tile)
            mine = (requests[at] == b)[:, None]
            result = attend_expanded_rows(
                q_nope[at].float(),
                q_pe[at].float(),
                expanded,
                cached[:, latent:],
                bias[at],
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
    positions: torch.Tensor,
    requests: torch.Tensor,
    page_table: torch.Tensor,
    out: torch.Tensor,
    *,
    scale: float,
    row_tile: int,
    layout: str,
) -> None:
    """Write attention with keys and values made per head, selected positions by mask."""
    stored = cached_rows(cache, layout, (kv_b.shape[1], q_pe.shape[2]))
    bias = bias_of_chosen(selection, page_table.shape[1] * stored.page_tokens)
    where = (positions, requests, page_table)
    _expanded(q_nope, q_pe, kv_b, kv_b_scale, stored, bias, *where, out, scale, row_tile)
    out.masked_fill_(selection[:, :1] < 0, 0)


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
    layout: str,
) -> None:
    """Write attention over visible positions with keys and values made per head."""
    stored = cached_rows(cache, layout, (kv_b.shape[1], q_pe.shape[2]))
    page_table = _first_pages(page_table, limit, stored)
    bias = bias_of(_visible(_columns(stored, page_table), positions, limit))
    where = (positions, requests, page_table)
    _expanded(q_nope, q_pe, kv_b, kv_b_scale, stored, bias, *where, out, scale, row_tile)
