"""Which request a row belongs to and where its cached positions lie. Knows no op."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lostwax.ir.reference.cache_bytes import Cache, CacheBytes
from lostwax.ir.reference.dtype import Array, Real, widen


def rows_with_request(positions: Array, q_starts: Array) -> Iterator[tuple[int, int]]:
    """(row, request) of every row that is not padding: q_starts[b] <= row < q_starts[b + 1]."""
    for b in range(len(q_starts) - 1):
        for row in range(int(q_starts[b]), int(q_starts[b + 1])):
            if positions[row] >= 0:
                yield row, b


def cached_rows(cache: Cache, pages: Array, wanted: Array) -> Real:
    """Rows [n, width] in fp64 at positions `wanted` of a request with these pages."""
    page_tokens = cache.shape[1]
    slots = pages[wanted // page_tokens] * page_tokens + wanted % page_tokens
    if isinstance(cache, CacheBytes):
        return cache.rows(slots)
    return widen(cache.reshape(-1, cache.shape[2])[slots])


def visible(position: int) -> Array:
    """The positions that a row sees, its own among them."""
    return np.arange(position + 1)
