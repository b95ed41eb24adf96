"""Hands out cache pages. Knows page ids and owners, never what a page holds."""

from __future__ import annotations

import heapq

from lostwax.ir.contract.step import TRASH_PAGE


class OutOfPages(RuntimeError):
    """Fewer pages are free than were asked for."""


class PageAllocator:
    """Pages 1 .. num_pages-1; the lowest free page goes first, so that runs repeat exactly."""

    def __init__(self, num_pages: int) -> None:
        if num_pages < 2:
            raise ValueError(
                f"num_pages={num_pages} leaves no page beside the trash page; give at least 2"
            )
        self._usable = frozenset(range(num_pages)) - {TRASH_PAGE}
        self._free = sorted(self._usable)
        self._owners: dict[int, str] = {}

    @property
    def num_usable(self) -> int:
        """Pages that requests can ever hold."""
        return len(self._usable)

    @property
    def num_free(self) -> int:
        """Pages that no request holds."""
        return len(self._free)

    def allocate(self, count: int, owner: str) -> list[int]:
        """`count` pages for `owner`, or OutOfPages and no change."""
        if count > len(self._free):
            raise OutOfPages(f"{owner} wants {count} pages, {len(self._free)} are free")
        pages = [heapq.heappop(self._free) for _ in range(count)]
        self._owners.update(dict.fromkeys(pages, owner))
        return pages

    def release(self, pages: list[int], owner: str) -> None:
        """Give pages back; a page that `owner` does not hold is an error."""
        for page in pages:
            if self._owners.get(page) != owner:
                raise ValueError(f"{owner} gives back page {page}, which it does not hold")
            del self._owners[page]
            heapq.heappush(self._free, page)

    def held_by(self, owner: str) -> set[int]:
        """The pages of one owner."""
        return {page for page, holder in self._owners.items() if holder == owner}

    def check_integrity(self) -> None:
        """Every usable page is either free or held, once; the trash page is neither."""
        free = set(self._free)
        assert len(free) == len(self._free), "a page is free twice"
        assert not free & self._owners.keys(), "a page is free and held"
        assert free | self._owners.keys() == self._usable, "a page is lost"
