"""The next smaller setting of a kernel that fits a workgroup's LDS, found by compiling it.

Only asked where one does not fit: the refusal is to name what does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from msgspec import structs

from lostwax.ir.contract.kernel import KernelSource

_SHRINKING = ("BLOCK_KEYS", "BLOCK_ROWS", "BLOCK_N", "BLOCK_HEADS")
"""Constants that say how large a tile is, all powers of two, and nothing of what it means."""
_LEAST = 16  # the matrix units' smallest side


def _smaller(source: KernelSource) -> Iterator[tuple[str, KernelSource]]:
    """Fewer stages first, the most of them first; then one side of the tile halved at a time."""
    for stages in range(source.num_stages - 1, 0, -1):
        ahead = {"AHEAD": stages} if source.constants.get("AHEAD") else {}
        constants = source.constants | ahead
        changed = structs.replace(source, num_stages=stages, constants=constants)
        yield f"num_stages={stages}", changed
    for name in (n for n in _SHRINKING if n in source.constants):
        size = source.constants[name] // 2
        while size >= _LEAST:
            constants = source.constants | {name: size}
            yield f"{name}={size}", structs.replace(source, constants=constants)
            size //= 2


def next_legal(
    source: KernelSource, lds_bytes: Callable[[KernelSource], int], limit: int
) -> str | None:
    """Such as `num_stages=2`, where the rest may stay; None if nothing smaller of one kind fits."""
    for said, smaller in _smaller(source):
        if lds_bytes(smaller) <= limit:
            return said
    return None
