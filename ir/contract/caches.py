"""Cache planes: what the scheduler, the prefix cache and the runtime share about cache memory."""

from __future__ import annotations

import msgspec

from lostwax.ir.contract.bounds import Bytes, Count, Word


class CachePlane(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of cached row, for all layers. One page id addresses all planes of all layers.

    `layout` names the byte layout (`cache_layout.py`), `page_bytes` counts one page of one layer.
    """

    name: Word
    layers: Count
    layout: Word
    row: tuple[Count, ...]
    page_tokens: Count
    page_bytes: Bytes
    shard: str | None = None


def bytes_per_page(planes: tuple[CachePlane, ...]) -> int:
    """Bytes that one page id occupies over all planes and layers."""
    return sum(p.layers * p.page_bytes for p in planes)
