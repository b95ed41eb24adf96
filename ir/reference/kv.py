"""The meaning of the `kv` ops in numpy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lostwax.ir.reference.cache_bytes import Cache, CacheBytes
from lostwax.ir.reference.dtype import Array, Value, widen


def append(cache_in: Cache, rows: Sequence[Value], slots: Array) -> Cache:
    """The cache [N, page, width] with row t, the parts side by side, written at slots[t].

    A slot is page * page_tokens + place in the page. Rows that share a slot (padding, in the
    trash page) leave one of them there.
    """
    if isinstance(cache_in, CacheBytes):
        return cache_in.written(rows, slots)
    out = widen(cache_in)
    page_tokens = out.shape[1]
    row = np.concatenate([widen(r) for r in rows], axis=-1)
    out[slots // page_tokens, slots % page_tokens] = row
    return out
