"""Which rows belong to which request, read on the host. Knows nothing of programs."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple, cast

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
    """The requests that have rows in this step."""
    starts = cast("list[int]", q_starts.tolist())
    return [
        Span(b, start, stop, int(positions[start]))
        for b, (start, stop) in enumerate(pairwise(starts))
        if stop > start
    ]


def real_rows(spans: list[Span]) -> int:
    """Rows that are not padding: they come first."""
    return spans[-1].stop if spans else 0


def tiles(span: Span, row_tile: int) -> list[Span]:
    """The span cut into at most `row_tile` rows; the last row of each bounds what it reads."""
    return [
        Span(span.request, at, min(at + row_tile, span.stop), span.first + at - span.start)
        for at in range(span.start, span.stop, row_tile)
    ]
