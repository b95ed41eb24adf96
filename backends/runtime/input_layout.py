"""Where a step's inputs lie in one packed buffer. Plans need it, and no torch."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

from lostwax.ir.contract.artifact import ProgramRef
from lostwax.ir.contract.program import HEADS, Bucket, Segment
from lostwax.ir.contract.step import input_shape, inputs_of

ALIGN = 64  # bytes, so that every input begins a cache line


def input_offsets(segment: Segment, bucket: Bucket) -> tuple[dict[str, int], int]:
    """Byte offset of each of a segment's inputs in its packed buffer, and the buffer's size."""
    offsets: dict[str, int] = {}
    end = 0
    for name in inputs_of(segment):
        offsets[name] = end
        end += -(-4 * prod(input_shape(name, bucket)) // ALIGN) * ALIGN
    return offsets, end


def input_bytes(programs: Iterable[ProgramRef]) -> tuple[int, int]:
    """Bytes of the largest inputs of any body and of any head."""
    sizes = [(ref.segment in HEADS, input_offsets(ref.segment, ref.bucket)[1]) for ref in programs]
    return (
        max((size for is_head, size in sizes if not is_head), default=0),
        max((size for is_head, size in sizes if is_head), default=0),
    )
