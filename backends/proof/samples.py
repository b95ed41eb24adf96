"""Which rows and columns of a result stand for all of it: a part of every tile. Knows no op.

Kernels go wrong in blocks: a tile, the edge of every tile, the last tile, all behind an offset.
"""

from __future__ import annotations

import numpy as np

from lostwax.backends.runtime.draw import LEAST_ROWS
from lostwax.backends.runtime.hash_numbers import bits24
from lostwax.ir.reference.dtype import Array

TILE = 128
"""Columns: kernels' tiles are of about so many."""
FEWEST_TILES, MOST_TILES = 32, 256
"""Narrow results are sampled as if tiles were smaller, vocabularies as if they were larger."""
ROW_TILES = 4
HEAD_TILES = 4


def spread(count: int, stretch: int) -> Array:
    """Ascending indexes below `count`: of every stretch the first, the last and one inside."""
    starts = np.arange(0, count, max(stretch, 1))
    ends = np.minimum(starts + max(stretch, 1), count) - 1
    inside = starts + bits24(count, starts) % np.maximum(ends - starts + 1, 1)
    return np.unique(np.concatenate([starts, inside, ends]))


def sampled_columns(width: int) -> Array:
    """Columns of a result of this width: at most 3 * 256, both edges of tiles among them."""
    if width > MOST_TILES * TILE:
        return spread(width, -(-width // (MOST_TILES * TILE)) * TILE)
    narrow = max(width // FEWEST_TILES, 1)
    return spread(width, min(TILE, 1 << (narrow.bit_length() - 1)))


def sampled_heads(heads: int) -> Array:
    """At most 12 of them."""
    return spread(heads, -(-heads // HEAD_TILES))


def sampled_rows(starts: Array, real: int, count: int) -> Array:
    """Of the first `real` of `count` rows: edge rows, both sides of requests, the last real one.

    Those behind them have no token, and nothing to compare. `starts` are those of requests and the
    end of the last one.
    """
    some = np.unique(starts)[1:3]
    borders = [*range(LEAST_ROWS + 1), *some - 1, *some, real - 1]
    each = np.concatenate([np.array(borders), spread(count, -(-count // ROW_TILES))])
    return np.unique(each[(each >= 0) & (each < real)]).astype(np.int64)
