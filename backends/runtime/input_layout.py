"""Where a step's inputs lie in one packed buffer. Plans need it, and no torch."""

from __future__ import annotations

from math import prod

from lostwax.ir.contract.program import Bucket
from lostwax.ir.contract.step import STEP_INPUTS, input_shape

ALIGN = 64  # bytes, so that every input begins a cache line


def input_offsets(bucket: Bucket) -> tuple[dict[str, int], int]:
    """Byte offset of each input in one packed buffer, and the buffer's size."""
    offsets: dict[str, int] = {}
    end = 0
    for name in STEP_INPUTS:
        offsets[name] = end
        end += -(-4 * prod(input_shape(name, bucket)) // ALIGN) * ALIGN
    return offsets, end
