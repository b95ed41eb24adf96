"""Latent attention request by request, over the lengths that are really there.

Reads q_starts and positions on the host. Knows nothing of programs.
"""

from __future__ import annotations

import torch

from lostwax.backends.cpu.kernels.spans import real_rows, spans_of, tiles
from lostwax.backends.portable.kernels.attention import (
    absorb,
    attend_expanded_rows,
    bias_of,
    bias_of_chosen,
    head_weights,
    write_heads,
)
from lostwax.backends.portable.kernels.blocks import dequantise
from lostwax.backends.portable.kernels.paging import CachedRows, cached_rows, rows_at, rows_of_one


def _pages(cache: CachedRows, page_table: torch.Tensor, b: int, length: int) -> torch.Tensor:
    return rows_of_one(cache, page_table[b, : -(-length // cache.page_tokens)], length)


def _causal(columns: int, positions: torch.Tensor) -> torch.Tensor:
    return bias_of(torch.arange(columns) <= positions[:, None])


def attend_dense_absorbed(
    q_nope: torch.Tensor,
    q_pe: torch.Tensor,
    kv_b: torch.Tensor,
    kv_b_scale: torch.Tensor | None,
    cache: torch.Tensor,
    positions: torch.Tensor,
    q_starts: torch.Tensor,
    page_table: torch.Tensor,
    out: torch.Tensor,
    *,
    scale: float,
    limit: int,
    row_tile: int,
    layout: str,
) -> None:
    """Write attention over each row's first `limit` visible positions. For few rows a request."""
    heads, nope, latent = q_nope.shape[1], q_nope.shape[2], kv_b.shape[1]
    keys, values = head_weights(kv_b, kv_b_scale, heads, nope)
    stored = cached_rows(cache, layout, (latent, q_pe.shape[2]))
    spans = spans_of(q_starts, positions)
    rows = real_rows(spans)
    if not rows:
        return
    q = absorb(q_nope[:rows], q_pe[:rows], keys).mul_(scale)
    context = torch.empty((rows, heads, latent))
    for span in spans:
        cached = _pages(stored, page_table, span.request, min(span.length, limit))
        for tile in tiles(span, row_tile):
            at, seen = slice(tile.start, tile.stop), min(tile.length, limit)
            scores = torch.mm(q[at].flatten(0, 1), cached[:seen].t())
            if tile.stop - tile.start > 1:
                scores.view(-1, heads, seen).add_(_causal(seen, positions[at])[:, None])
            p = torch.softmax(scores, -1)
            torch.mm(p, cached[:seen, :latent], out=context[at].flatten(0, 1))
    write_heads(context, values, out[:rows])


def attend_union(
    q_nope: torch.Tensor,
    q_pe: torch.Tensor,
    kv_b: torch.Tensor,
    kv_b_scale: torch.Tensor | None,
    cache: torch.Tensor,
    selection: torch.Tensor,
    positions: torch.Tensor,
    q_starts: torch.Tensor,
    page_table: torch.Tensor,
    out: torch.Tensor,
    *,
    scale: float,
    limit: int,
    row_tile: int,
    layout: str,
) -> None:
    """Write attention over each row's selected positions [T, K]. For some rows a request.

    What the rows of a tile select is gathered once: neighbours select much the same.
    """
    heads, latent = q_nope.shape[1], kv_b.shape[1]
    keys, values = head_weights(kv_b, kv_b_scale, heads, q_nope.shape[2])
    stored = cached_rows(cache, layout, (latent, q_pe.shape[2]))
    spans = spans_of(q_starts, positions)
    rows = real_rows(spans)
    if not rows:
        out.zero_()
        return
    q = absorb(q_nope[:rows], q_pe[:rows], keys).mul_(scale)
    context = torch.empty((rows, heads, latent))
    for span in spans:
        for tile in tiles(span, row_tile):
            at = slice(tile.start, tile.stop)
            bias = bias_of_chosen(selection[at], min(tile.length, limit))
            union = (bias == 0).any(0).nonzero().flatten()
            cached = rows_at(stored, page_table[span.request], union)
            scores = torch.mm(q[at].flatten(0, 1), cached.t())
            scores.view(-1, heads, len(union)).add_(bias.index_select(1, union)[:, None])
            p = torch.softmax(scores, -1)
            torch.mm(p, cached[:, :latent], out=context[at].flatten(0, 1))
    write_heads(context, values, out[:rows])
    out.masked_fill_(selection[:, :1] < 0, 0)


def attend_expanded(
    q_nope: torch.Tensor,
    q_pe: torch.Tensor,
    kv_b: torch.Tensor,
    kv_b_scale: torch.Tensor | None,
    cache: torch.Tensor,
    selection: torch.Tensor | None,
    positions: torch.Tensor,
    q_starts: torch.Tensor,
    page_table: torch.Tensor,
    out: torch.Tensor,
    *,
    scale: float,
    limit: int,
    row_tile: int,
    layout: str,
) -> None:
    """Write attention with keys and values made per head, once a request. For many rows a request.

    A selection [T, K] becomes a mask; without one, each row's first `limit` positions are visible.
    """
    rows, heads, _ = q_nope.shape
    latent = kv_b.shape[1]
    weight = dequantise(kv_b, kv_b_scale, torch.float32).t()
    per_head = out.view(rows, heads, -1)
    stored = cached_rows(cache, layout, (latent, q_pe.shape[2]))
    for span in spans_of(q_starts, positions):
        cached = _pages(stored, page_table, span.request, min(span.length, limit))
        expanded = torch.mm(cached[:, :latent], weight).view(cached.shape[0], heads, -1)
        for tile in tiles(span, row_tile):
            at, seen = slice(tile.start, tile.stop), min(tile.length, limit)
            if selection is None:
                bias = _causal(seen, positions[at])
            else:
                bias = bias_of_chosen(selection[at], seen)
            result = attend_expanded_rows(
                q_nope[at].float(),
                q_pe[at].float(),
                expanded[:seen],
                cached[:seen, latent:],
                bias,
                scale,
            )
            per_head[at].copy_(result.transpose(0, 1))
    if selection is not None:
        out.masked_fill_(selection[:, :1] < 0, 0)
