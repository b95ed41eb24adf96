"""Cached rows in f32, by position: by selection, by row, by request. Knows nothing of programs."""

from __future__ import annotations

from typing import Protocol

import torch

from lostwax.backends.portable.kernels.fp8 import FP8_TYPES, widen
from lostwax.ir.contract.cache_layout import LAYOUTS, CacheLayout


class CachedRows(Protocol):
    """One layer's cache, whatever its layout."""

    page_tokens: int

    def at(self, slots: torch.Tensor) -> torch.Tensor:
        """[n, width] f32: the rows at slots i64 [n]."""
        ...

    def of(self, pages: torch.Tensor) -> torch.Tensor:
        """[p * page_tokens, width] f32: all rows of pages [p]."""
        ...


class _Plain:
    """[N, page_tokens, width] of one element type."""

    def __init__(self, cache: torch.Tensor) -> None:
        self._dtype = cache.dtype
        # torch does not index one-byte floats on every device
        self._cache = cache.view(torch.uint8) if cache.element_size() == 1 else cache
        self.page_tokens = cache.shape[1]

    def at(self, slots: torch.Tensor) -> torch.Tensor:
        flat = self._cache.view(-1, self._cache.shape[2])
        return flat.index_select(0, slots).view(self._dtype).float()

    def of(self, pages: torch.Tensor) -> torch.Tensor:
        rows = self._cache.index_select(0, pages).view(-1, self._cache.shape[2])
        return rows.view(self._dtype).float()


def _typed(raw: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    # one row of a slice counts as contiguous already, wherever it starts
    return raw.clone(memory_format=torch.contiguous_format).view(dtype)


class _Bytes:
    """[N, page_tokens, row_bytes] of u8: values, their scales, bf16 parts."""

    def __init__(self, cache: torch.Tensor, form: CacheLayout, row: tuple[int, ...]) -> None:
        self._cache, self._form, self._row = cache, form, row
        self.page_tokens = cache.shape[1]

    def at(self, slots: torch.Tensor) -> torch.Tensor:
        return self._decode(self._cache.view(-1, self._cache.shape[2]).index_select(0, slots))

    def of(self, pages: torch.Tensor) -> torch.Tensor:
        return self._decode(self._cache.index_select(0, pages).view(-1, self._cache.shape[2]))

    def _decode(self, raw: torch.Tensor) -> torch.Tensor:
        values, scales = self._row[0], 4 * self._form.scales(self._row)
        scale = _typed(raw[:, values : values + scales], torch.float32)
        first = _typed(raw[:, :values], FP8_TYPES[self._form.dtypes[0]])
        wide = widen(first, scale, self._form.scale_block)
        if len(self._row) == 1:
            return wide
        return torch.cat([wide, _typed(raw[:, values + scales :], torch.bfloat16).float()], -1)


class _Paged:
    """[N, page_bytes] of u8: the values of a page's tokens, then their scales."""

    def __init__(self, cache: torch.Tensor, form: CacheLayout, row: tuple[int, ...]) -> None:
        self._cache, self._form, self._row = cache, form, row
        self.page_tokens = cache.shape[1] // form.row_bytes(row)

    def at(self, slots: torch.Tensor) -> torch.Tensor:
        page, token = slots // self.page_tokens, slots % self.page_tokens
        values, scales = paged_parts(self._cache, self._form, self._row)
        return self._decode(values[page, token], scales[page, token])

    def of(self, pages: torch.Tensor) -> torch.Tensor:
        values, scales = paged_parts(self._cache.index_select(0, pages), self._form, self._row)
        return self._decode(values.flatten(0, 1), scales.flatten(0, 1))

    def _decode(self, values: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
        first = _typed(values, FP8_TYPES[self._form.dtypes[0]])
        scale = _typed(scales, torch.float32)
        return widen(first, scale, self._form.scale_block)


def paged_parts(
    cache: torch.Tensor, form: CacheLayout, row: tuple[int, ...]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Views of u8 pages [N, page_bytes]: values [N, tokens, D] and scales [N, tokens, 4 * S]."""
    page_bytes, values = cache.shape[1], row[0]
    tokens, scales = page_bytes // form.row_bytes(row), 4 * form.scales(row)
    start = cache.storage_offset()

    def part(width: int, offset: int) -> torch.Tensor:
        strides = (page_bytes, width, 1)
        return cache.as_strided((cache.shape[0], tokens, width), strides, start + offset)

    return part(values, 0), part(scales, tokens * values)


def cached_rows(cache: torch.Tensor, layout: str, row: tuple[int, ...]) -> CachedRows:
    """Read a cache in a layout; `row` are the widths of a row's parts."""
    form = LAYOUTS[layout]
    if form.element is not None:
        return _Plain(cache)
    return _Paged(cache, form, row) if form.is_paged else _Bytes(cache, form, row)


def selected_rows(
    cache: CachedRows,
    selection: torch.Tensor,
    requests: torch.Tensor,
    page_table: torch.Tensor,
) -> torch.Tensor:
    """[t, K, width] f32: cached rows at the selected positions of each row's request.

    selection [t, K] (-1 reads position 0), requests i64 [t].
    """
    page_tokens = cache.page_tokens
    wanted = selection.clamp(min=0)
    entry = requests[:, None] * page_table.shape[1] + wanted // page_tokens
    page = page_table.reshape(-1).index_select(0, entry.flatten()).long()
    slot = page * page_tokens + (wanted % page_tokens).flatten()
    return cache.at(slot).view(*selection.shape, -1)


def rows_of_requests(
    cache: CachedRows, requests: torch.Tensor, page_table: torch.Tensor
) -> torch.Tensor:
    """[t, P * page, width] f32: all columns of each row's request."""
    pages = page_table.index_select(0, requests)
    columns = page_table.shape[1] * cache.page_tokens
    return cache.of(pages.flatten()).view(pages.shape[0], columns, -1)


def rows_of_one(cache: CachedRows, pages: torch.Tensor, length: int | None = None) -> torch.Tensor:
    """[n, width] f32: the first `length` (all) rows that these pages [p] hold."""
    return cache.of(pages)[:length]


def rows_at(cache: CachedRows, pages: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """[n, width] f32: the rows at positions i64 [n] of the request whose pages these are."""
    page = pages.index_select(0, positions // cache.page_tokens)
    return cache.at(page * cache.page_tokens + positions % cache.page_tokens)
