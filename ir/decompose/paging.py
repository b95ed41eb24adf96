"""Requests of rows and slots of positions, in ONNX operators. Knows no op."""

from __future__ import annotations

from lostwax.ir.decompose.body import Body, Value
from lostwax.ir.types import CacheType


def pages_of_rows(b: Body, num_rows: Value) -> Value:
    """[T, P]: the page table of each row's request, which is the number of ends at or before it.

    Padded rows come after every request and get the last one's pages; the caller hides them.
    """
    ends = b("Slice", b.index("q_starts"), b.ints(1), b.ints(2**31), b.ints(0))
    row = b.counting(num_rows)
    request = b("ReduceSum", (ends.at(0) <= row.at(1)).to("i64"), b.ints(1), keepdims=0)
    last = b.index("page_table").extent(0) - 1
    return b.index("page_table").gather(b("Min", request, last))


def slots_at(b: Body, pages: Value, kind: CacheType, positions: Value) -> Value:
    """Slots [T, K] of `positions` [T, K], none negative, under each row's pages [T, P]."""
    size = kind.page_tokens.data
    page = b("GatherElements", pages, positions // size, axis=1)
    return page * size + positions % size
