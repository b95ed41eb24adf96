"""Cache pages as the bytes that layouts store which are no array of rows, in numpy. Knows no op."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lostwax.ir.contract.cache_layout import LAYOUTS, CacheLayout
from lostwax.ir.reference.dtype import NUMPY_DTYPES, Array, Real, Scaled, Value, round_to, widen


@dataclass(frozen=True, slots=True)
class CacheBytes:
    """N pages [N, page_bytes] of u8 in a scaled layout; `row` are the widths of a row's parts.

    Where parts are apart, all bytes are those of the first part of all pages, then of the next.
    """

    data: Array
    layout: str
    row: tuple[int, ...]
    page_tokens: int

    @staticmethod
    def zeros(layout: str, pages: int, page_tokens: int, row: tuple[int, ...]) -> CacheBytes:
        """Empty pages."""
        page_bytes = page_tokens * LAYOUTS[layout].row_bytes(row)
        return CacheBytes(np.zeros((pages, page_bytes), np.uint8), layout, row, page_tokens)

    @property
    def form(self) -> CacheLayout:
        """What the layout's name stands for."""
        return LAYOUTS[self.layout]

    @property
    def shape(self) -> tuple[int, int, int]:
        """The logical shape: pages, tokens of a page, elements of a row."""
        return (self.data.shape[0], self.page_tokens, sum(self.row))

    def holding(self, data: Array) -> CacheBytes:
        """The same cache with other contents, of any shape with as many bytes."""
        return replace(self, data=data.reshape(self.data.shape))

    def _places(self) -> Array:
        """[page_tokens, row_bytes]: where in its page each byte of a token lies."""
        row_bytes = self.form.row_bytes(self.row)
        tokens = np.arange(self.page_tokens)[:, None]
        if not self.form.is_paged:
            return tokens * row_bytes + np.arange(row_bytes)
        values = sum(self.row)
        scales = row_bytes - values
        behind = self.page_tokens * values
        return np.concatenate(
            [
                tokens * values + np.arange(values),
                behind + tokens * scales + np.arange(scales),
            ],
            axis=1,
        )

    def tokens(self) -> Array:
        """[N * page_tokens, row_bytes]: every token's bytes: values, scales, other parts."""
        if self.form.parts_apart:
            return np.concatenate(self._apart(self.data), axis=1)
        places = self._places()
        return self.data[:, places].reshape(-1, places.shape[1])

    def _apart(self, data: Array) -> list[Array]:
        """Views of each part's bytes [N * page_tokens, bytes], of contiguous data."""
        widths = self.form.part_bytes(self.row)
        rows = self.data.shape[0] * self.page_tokens
        cuts = np.cumsum([rows * width for width in widths])[:-1]
        pieces = np.split(data.reshape(-1), cuts)
        return [p.reshape(rows, width) for p, width in zip(pieces, widths, strict=True)]

    def _place_apart(self, tokens: Array, slots: Array | slice) -> CacheBytes:
        """The cache with tokens' bytes at the slots, each part where it lies."""
        data = self.data.copy()
        cuts = np.cumsum(self.form.part_bytes(self.row))[:-1]
        for part, given in zip(self._apart(data), np.split(tokens, cuts, axis=1), strict=True):
            part[slots] = given
        return replace(self, data=data)

    def of_tokens(self, tokens: Array) -> CacheBytes:
        """The same cache holding these tokens, in the order that `tokens` gives."""
        if self.form.parts_apart:
            return self._place_apart(tokens, slice(None))
        data, places = np.empty_like(self.data), self._places()
        data[:, places] = tokens.reshape(data.shape[0], *places.shape)
        return replace(self, data=data)

    def rows(self, slots: Array) -> Real:
        """[n, sum(row)] fp64: the rows at slots, scales multiplied in."""
        return self.decode(self.tokens()[slots])

    def decode(self, tokens: Array) -> Real:
        """Rows [n, sum(row)] of tokens' bytes [n, row_bytes]."""
        if not self.form.scale_block:
            stored = widen(_typed(tokens, self.form.dtypes[0]))
            rows = np.empty_like(stored)
            rows[:, list(self.form.order(self.row))] = stored
            return rows
        values, scales = self.row[0], self.form.scales(self.row)
        cuts = np.cumsum([values, 4 * scales])
        first, scale, rest = np.split(tokens, cuts, axis=1)
        scaled = Scaled(
            _typed(first, self.form.dtypes[0]), _typed(scale, "f32"), 1, self.form.scale_block
        )
        parts = [widen(scaled)]
        if rest.shape[1]:
            parts.append(widen(_typed(rest, self.form.dtypes[1])))
        return np.concatenate(parts, axis=1)

    def written(self, rows: Sequence[Value], slots: Array) -> CacheBytes:
        """The cache with the parts of row t at slots[t]."""
        if self.form.parts_apart:
            row = np.concatenate([widen(part) for part in rows], axis=1)
            plain = round_to(row[:, list(self.form.order(self.row))], self.form.dtypes[0])
            return self._place_apart(_bytes(plain), slots)
        first, *rest = rows
        assert isinstance(first, Scaled)  # kv.append's verifier
        bytes_of = [_bytes(first.values), _bytes(first.scales.astype(np.float32))]
        for part, dtype in zip(rest, self.form.dtypes[1:], strict=True):
            bytes_of.append(_bytes(round_to(widen(part), dtype)))
        data, places = self.data.copy(), self._places()
        pages, tokens = slots // self.page_tokens, slots % self.page_tokens
        data[pages[:, None], places[tokens]] = np.concatenate(bytes_of, axis=1)
        return replace(self, data=data)


Cache = Array | CacheBytes
"""Pages [N, page_tokens, row] of a layout with one element type, or the bytes of another."""


def empty_cache(layout: str, pages: int, page_tokens: int, row: tuple[int, ...]) -> Cache:
    """Pages of zeros, as the references read and write them."""
    element = LAYOUTS[layout].element
    if element is None:
        return CacheBytes.zeros(layout, pages, page_tokens, row)
    return np.zeros((pages, page_tokens, sum(row)), NUMPY_DTYPES[element])


def _typed(raw: Array, dtype: str) -> Array:
    return np.ascontiguousarray(raw).view(NUMPY_DTYPES[dtype])


def _bytes(values: Array) -> Array:
    return np.ascontiguousarray(values).view(np.uint8).reshape(values.shape[0], -1)
