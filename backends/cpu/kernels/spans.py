"""Which rows belong to which request, read on the host. Knows nothing of programs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch


class Span(NamedTuple):
    """Rows start..stop-1 of one request; row start + i has position `first` + i."""

    request: int
    start: int
    stop: int
    first: int

    @property
    def length(self) -> int:
        """Cached positions that the last row sees."""
        return self.first + self.stop - self.start


def spans_of(q_starts: torch.Tensor, positions: torch.Tensor) -> list[Span]:
    """The requests that have rows in this step; rows without a token, which lie behind those with
    one, are left out."""
    at = positions.numpy()
    starts = q_starts.numpy()
    requests = np.nonzero(np.diff(starts))[0]
    if not len(requests):
        return []
    begins = starts[requests]
    held = np.add.reduceat(at >= 0, begins, dtype=np.int64)
    return [
        Span(request, begin, begin + count, first)
        for request, begin, count, first in zip(
            requests.tolist(), begins.tolist(), held.tolist(), at[begins].tolist(), strict=True
        )
        if count
    ]


def real_rows(spans: list[Span]) -> int:
    """Rows up to the last one with a token."""
    return spans[-1].stop if spans else 0


def tiles(span: Span, row_tile: int) -> list[Span]:
    """The span cut into at most `row_tile` rows; the last row of each bounds what it reads."""
    return [
        Span(span.request, at, min(at + row_tile, span.stop), span.first + at - span.start)
        for at in range(span.start, span.stop, row_tile)
    ]
