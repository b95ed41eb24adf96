"""One rank among those that run an artifact together. Knows no process group."""

from __future__ import annotations

import msgspec


class Rank(msgspec.Struct, frozen=True):
    """Rank `index` of `count`; the only one by default."""

    index: int = 0
    count: int = 1

    def bounds(self, extent: int, block: int = 1) -> tuple[int, int]:
        """Which of an axis' elements are this rank's, or which of its blocks, the last one short.

        A rank's elements begin where a block begins, or lie in one block (`shard` sees to it).
        """
        local = extent // self.count
        start = self.index * local
        return start // block, -(-(start + local) // block)


ALONE = Rank()
