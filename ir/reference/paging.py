"""Which request a row belongs to and where its cached positions lie. Knows no op."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lostwax.ir.reference.dtype import Array


def rows_with_request(positions: Array, q_starts: Array) -> Iterator[tuple[int, int]]:
    """(row, request) of every row that is not padding: q_starts[b] <= row < q_starts[b + 1]."""
    for b in range(len(q_starts) - 1):
        for row in range(int(q_starts[b]), int(q_starts[b + 1])):
            if positions[row] >= 0:
                yield row, b


def cached_rows(cache: Array, pages: Array, wanted: Array) -> Array:
    """Rows of the cache [N, page, width] at positions `wanted` of a request with these pages."""
    page_tokens = cache.shape[1]
    return cache[pages[wanted // page_tokens], wanted % page_tokens]


def visible(position: int) -> Array:
    """The positions that a row sees, its own among them."""
    return np.arange(position + 1)
