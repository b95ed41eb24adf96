"""The indexer's choice request by request, over the lengths that are really there.

Reads q_starts and positions on the host. Knows nothing of programs.
"""

from __future__ import annotations

import torch

from lostwax.backends.cpu.kernels.selection import topk
from lostwax.backends.cpu.kernels.spans import spans_of, tiles
from lostwax.backends.portable.kernels.fp8 import widen
from lostwax.backends.portable.kernels.indexer import NEVER, row_logits
from lostwax.backends.portable.kernels.paging import cached_rows, rows_of_one
from lostwax.backends.portable.kernels.selection import every


def index_topk(
    q: torch.Tensor,
    q_scale: torch.Tensor | None,
    weights: torch.Tensor,
    cache: torch.Tensor,
    positions: torch.Tensor,
    q_starts: torch.Tensor,
    page_table: torch.Tensor,
    out: torch.Tensor,
    *,
    scale: float,
    row_tile: int,
    layout: str,
) -> None:
    """Write the k best positions of each row: out [T, k]. Rows that see at most k get them all."""
    k = out.shape[1]
    stored = cached_rows(cache, layout, (q.shape[2],))
    spans = spans_of(q_starts, positions)
    out[positions < 0] = -1
    for span in spans:
        keys: torch.Tensor | None = None
        for tile in tiles(span, row_tile):
            at, seen = slice(tile.start, tile.stop), tile.length
            if seen <= k:
                every(positions[at], out[at])
                continue
            if keys is None:
                pages = page_table[span.request, : -(-span.length // stored.page_tokens)]
                keys = rows_of_one(stored, pages, span.length)
            rows = widen(q[at], None if q_scale is None else q_scale[at])
            logits = row_logits(rows, weights[at].float(), keys[:seen], scale)
            if tile.stop - tile.start > 1:
                logits.masked_fill_(torch.arange(seen) > positions[at][:, None], NEVER)
            topk(logits, out[at])
