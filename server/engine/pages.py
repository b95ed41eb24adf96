"""Hands out cache pages. Knows page ids, owners and which pages are kept, not what they hold.

A page has as many owners as share it. One without an owner is blank, or idle where it is kept: then
it stays as it is until somebody needs room. What a call costs follows the pages that it is about.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterable, Sequence

from lostwax.ir.contract.step import TRASH_PAGE


class OutOfPages(RuntimeError):
    """Fewer pages are blank than were asked for."""


class PageAllocator:
    """Pages 1 .. num_pages-1; the lowest blank page goes first, so that runs repeat exactly."""

    def __init__(self, num_pages: int) -> None:
        if num_pages < 2:
            raise ValueError(
                f"num_pages={num_pages} leaves no page beside the trash page; give at least 2"
            )
        self._usable = frozenset(range(num_pages)) - {TRASH_PAGE}
        self._blank = sorted(self._usable)  # a heap
        self._kept: set[int] = set()
        self._idle = OrderedDict[int, None]()
        """Kept pages without an owner: the one that has been idle for longest is first. (The first
        of a plain dict lies behind the places of all that went before it.)"""
        self._held: dict[str, set[int]] = {}
        self._num_owners: dict[int, int] = {}
        self.num_taken = 0
        """Idle pages that ever came to be held."""

    @property
    def num_usable(self) -> int:
        """Pages that requests can ever hold."""
        return len(self._usable)

    @property
    def num_free(self) -> int:
        """Pages that no request holds: blank ones, and idle ones, which may be dropped."""
        return len(self._blank) + len(self._idle)

    @property
    def num_blank(self) -> int:
        """Pages that can be allocated."""
        return len(self._blank)

    def allocate(self, count: int, owner: str) -> list[int]:
        """`count` blank pages for `owner`, or OutOfPages and no change."""
        if count > len(self._blank):
            raise OutOfPages(f"{owner} wants {count} pages, {len(self._blank)} are blank")
        pages = [heapq.heappop(self._blank) for _ in range(count)]
        self._num_owners.update(dict.fromkeys(pages, 1))
        self._held.setdefault(owner, set()).update(pages)
        return pages

    def share(self, pages: Sequence[int], owner: str) -> None:
        """Make `owner` one more owner of kept pages; any other page is an error."""
        held = self._held.setdefault(owner, set())
        for page in pages:
            if page not in self._kept or page in held:
                raise ValueError(f"{owner} cannot share page {page}: it is not kept, or its own")
            if page in self._idle:
                del self._idle[page]
                self.num_taken += 1
            self._num_owners[page] = self._num_owners.get(page, 0) + 1
            held.add(page)

    def release(self, pages: Iterable[int], owner: str) -> None:
        """Take an owner from pages; one that it does not hold is an error."""
        held = self._held.get(owner, set[int]())
        for page in pages:
            if page not in held:
                raise ValueError(f"{owner} gives back page {page}, which it does not hold")
            held.remove(page)
            self._num_owners[page] -= 1
            if self._num_owners[page]:
                continue
            del self._num_owners[page]
            if page in self._kept:
                self._idle[page] = None
            else:
                heapq.heappush(self._blank, page)
        if not held:
            self._held.pop(owner, None)

    def keep(self, page: int) -> None:
        """Let a page that somebody holds be idle, not blank, once nobody does."""
        if page not in self._num_owners or page in self._kept:
            raise ValueError(f"page {page} cannot be kept: nobody holds it, or it is kept already")
        self._kept.add(page)

    def drop(self, page: int) -> None:
        """Keep a page no longer: blank at once where it is idle, else once nobody holds it."""
        self._kept.remove(page)
        if page in self._idle:
            del self._idle[page]
            heapq.heappush(self._blank, page)

    def refresh(self, page: int) -> None:
        """Let a page, if it is idle, be the last of the idle ones."""
        if page in self._idle:
            self._idle.move_to_end(page)

    def longest_idle(self) -> int:
        """The page that has been idle for longest; there must be one."""
        return next(iter(self._idle))

    def is_idle(self, page: int) -> bool:
        """Whether a page is kept and nobody holds it."""
        return page in self._idle

    def is_shared(self, page: int) -> bool:
        """Whether a page must not be written: it is kept, or has several owners."""
        return page in self._kept or self._num_owners.get(page, 0) > 1

    def held_by(self, owner: str) -> set[int]:
        """The pages of one owner."""
        return set(self._held.get(owner, ()))

    @property
    def kept(self) -> set[int]:
        """The pages that are kept."""
        return set(self._kept)

    def check_integrity(self) -> None:
        """Every usable page is blank, idle or held, one of them; the trash page is none of it."""
        blank, idle = set(self._blank), set(self._idle)
        counts: dict[int, int] = {}
        for pages in self._held.values():
            for page in pages:
                counts[page] = counts.get(page, 0) + 1
        assert counts == self._num_owners, "a page has other owners than were counted"
        assert len(blank) == len(self._blank), "a page is blank twice"
        assert not blank & counts.keys(), "a page is blank and held"
        assert not blank & self._kept, "a page is blank and kept"
        assert idle == self._kept - counts.keys(), "a page is idle and held, or not kept"
        assert blank | idle | counts.keys() == self._usable, "a page is lost"
