"""How many cache pages are taken where the user names no number. Allocates none."""

from __future__ import annotations

from lostwax.ir.contract.artifact import Limits, Manifest
from lostwax.ir.contract.caches import bytes_per_page

DEFAULT_CACHE_BYTES = 1 << 30
"""Cache memory where the user names no number of pages."""


def default_pages(manifest: Manifest, cache_bytes: int = DEFAULT_CACHE_BYTES) -> int:
    """Pages for every request at full length, within `cache_bytes`, and the trash page."""
    limits: Limits = manifest.limits
    full = limits.max_reqs * -(-limits.max_context // limits.page_tokens)
    return min(full, max(cache_bytes // bytes_per_page(manifest.planes), 1)) + 1
