"""Places buffers that live for a while into one arena. Knows no program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

ALIGN = 256  # bytes; what CUDA's allocator gives, enough for every vector load


def align(num_bytes: int) -> int:
    """Rounded up to the arena's alignment."""
    return -(-num_bytes // ALIGN) * ALIGN


@dataclass(frozen=True, slots=True)
class Buffer:
    """Bytes wanted from launch position `born` to launch position `dies`, both included."""

    num_bytes: int
    born: int
    dies: int


def place(buffers: Sequence[Buffer]) -> tuple[list[int], int]:
    """Byte offsets in the order of `buffers`, and the arena's size.

    Largest first, each into the lowest gap that is free while it lives (measured equal to the peak
    of live bytes on this model's blocks).
    """
    order = sorted(range(len(buffers)), key=lambda i: (-buffers[i].num_bytes, buffers[i].born, i))
    placed: list[tuple[int, int, Buffer]] = []
    offsets = [0] * len(buffers)
    for i in order:
        buffer, offset, need = buffers[i], 0, align(buffers[i].num_bytes)
        for start, size, other in sorted(placed, key=lambda p: p[0]):
            if other.born <= buffer.dies and buffer.born <= other.dies:
                if offset + need <= start:
                    break
                offset = max(offset, start + size)
        offsets[i] = offset
        placed.append((offset, need, buffer))
    return offsets, max((o + n for o, n, _ in placed), default=0)
