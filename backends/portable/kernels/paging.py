"""Cached rows by position: by selection, by row, by request. Knows nothing of programs."""

from __future__ import annotations

import torch


def selected_rows(
    cache: torch.Tensor,
    selection: torch.Tensor,
    requests: torch.Tensor,
    page_table: torch.Tensor,
) -> torch.Tensor:
    """[t, K, width] f32: cached rows at the selected positions of each row's request.

    cache [N, page, width], selection [t, K] (-1 reads position 0), requests i64 [t].
    """
    page_tokens, width = cache.shape[1], cache.shape[2]
    wanted = selection.clamp(min=0)
    entry = requests[:, None] * page_table.shape[1] + wanted // page_tokens
    page = page_table.reshape(-1).index_select(0, entry.flatten()).long()
    slot = page * page_tokens + (wanted % page_tokens).flatten()
    rows = cache.view(-1, width).index_select(0, slot)
    return rows.view(*selection.shape, width).float()


def rows_of_requests(
    cache: torch.Tensor, requests: torch.Tensor, page_table: torch.Tensor
) -> torch.Tensor:
    """[t, P * page, width] f32: all columns of each row's request."""
    pages = page_table.index_select(0, requests)
    rows = cache.index_select(0, pages.flatten())
    return rows.view(pages.shape[0], -1, cache.shape[2]).float()


def rows_of_one(
    cache: torch.Tensor, pages: torch.Tensor, length: int | None = None
) -> torch.Tensor:
    """[n, width] f32: the first `length` (all) rows that these pages [p] hold."""
    return cache.index_select(0, pages).view(-1, cache.shape[2])[:length].float()
