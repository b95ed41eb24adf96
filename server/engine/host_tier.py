"""Which pages of the prefix cache lie in host memory, and what is copied to and fro. Knows keys,
pages and slots (pages of host memory), never tokens, requests or bytes.

A page that gives way on the device goes to the slot of the key that has been of no use for longest.
Copies are made in the order in which they are told, before the step that they are told with: so a
slot is never read before it was written, and a page's next owner never writes before it was saved.
A save waits for a later step where its page is written in none yet: that bounds what copies cost a
step. Its copy stays in the slot when it comes back: who gives way again is not saved again.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lostwax.ir.contract.step_plan import Move

MAX_MOVES = 64
"""Pages that are copied with a step, beside those that cannot wait: 200 MB of DeepSeek-V3.2's
pages of 64 tokens, some 4 ms of a PCIe 5 bus."""


@dataclass(frozen=True, slots=True)
class _Copy:
    slot: int
    has_drafts: bool
    """Whether the rows of the MTP layer hold, too."""


class HostTier:
    """`num_slots` pages of host memory by the keys of what they hold."""

    def __init__(self, num_slots: int, max_moves: int = MAX_MOVES) -> None:
        self.num_slots = num_slots
        self._max_moves = max_moves
        self._free = list(range(num_slots))  # a heap
        self._copies = OrderedDict[bytes, _Copy]()
        """The one that has been of no use for longest is first."""
        self._unsaved: dict[int, bytes] = {}
        """Pages whose save was not told yet, in the order in which they gave way: their keys."""
        self._page_of: dict[bytes, int] = {}
        """The same the other way round."""
        self._moves: list[Move] = []
        """What the next step is told, in order."""
        self.num_saved = 0
        self.num_restored = 0

    @property
    def room(self) -> int:
        """Pages that the next step may still bring back where others run."""
        return max(self._max_moves - len(self._moves), 0)

    @property
    def has_unsaved(self) -> bool:
        """Whether any save waits."""
        return bool(self._unsaved)

    def has(self, key: bytes, *, with_drafts: bool) -> bool:
        """Whether a page can be brought back; `with_drafts`: with rows of the MTP layer, too."""
        copy = self._copies.get(key)
        return copy is not None and (copy.has_drafts or not with_drafts)

    def save(self, key: bytes, page: int, *, has_drafts: bool) -> None:
        """Take in what a page holds that gives way, unless it lies here."""
        copy = self._copies.get(key)
        if copy is not None:
            if copy.has_drafts or not has_drafts:
                self._copies.move_to_end(key)
                return
            self.forget(key)
        elif not self._free:
            self.forget(next(iter(self._copies)))
        assert page not in self._unsaved, f"page {page} was written, and its save still waits"
        self._copies[key] = _Copy(heapq.heappop(self._free), has_drafts)
        self._unsaved[page], self._page_of[key] = key, page

    def restore(self, keys: Sequence[bytes], pages: Sequence[int]) -> None:
        """Bring pages back that lie here, each into one that nobody shares.

        All saves that this needs go first: copies that go one way are made together.
        """
        for key, page in zip(keys, pages, strict=True):
            self._copies.move_to_end(key)
            self._tell_save(page)
            self._tell_save(self._page_of.get(key))
        for key, page in zip(keys, pages, strict=True):
            self._moves.append(Move(page, self._copies[key].slot, is_restore=True))
        self.num_restored += len(keys)

    def forget(self, key: bytes) -> None:
        """Free the slot of a key, if it has one; a save that waits is made no more."""
        copy = self._copies.pop(key, None)
        if copy is None:
            return
        heapq.heappush(self._free, copy.slot)
        page = self._page_of.pop(key, None)
        if page is not None:
            del self._unsaved[page]

    def take_moves(self, written: Iterable[int]) -> tuple[Move, ...]:
        """What a step that writes these pages is told, in order."""
        if self._unsaved:
            for page in written:
                self._tell_save(page)
            while self._unsaved and self.room:
                self._tell_save(next(iter(self._unsaved)))
        moves, self._moves = tuple(self._moves), []
        return moves

    def clear(self) -> None:
        """Forget everything: nobody knows what was copied with a step that failed."""
        self._free = list(range(self.num_slots))
        for held in (self._copies, self._unsaved, self._page_of, self._moves):
            held.clear()

    def check_integrity(self) -> None:
        """Every slot is free or holds the page of one key; what waits to be saved has a slot."""
        slots = sorted([*self._free, *(copy.slot for copy in self._copies.values())])
        assert slots == list(range(self.num_slots)), "a slot is lost, or has two keys"
        assert self._page_of == {key: page for page, key in self._unsaved.items()}
        assert self._page_of.keys() <= self._copies.keys(), "a save waits that has no slot"

    def _tell_save(self, page: int | None) -> None:
        """Tell the next step of a page's save, if one waits."""
        if page is None or page not in self._unsaved:
            return
        key = self._unsaved.pop(page)
        del self._page_of[key]
        self._moves.append(Move(page, self._copies[key].slot, is_restore=False))
        self.num_saved += 1
