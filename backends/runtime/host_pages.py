"""Pages of host memory that take in what cache pages hold, of all planes, and give it back.

Knows bytes, never keys or requests. Copies go to the driver's stream, in the order of the steps:
nothing here waits. A page's rows lie apart in the planes (one a layer and kind of cache) and
together in the host: they meet in a small buffer of the device, so that one copy over the bus takes
a whole page.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from lostwax.backends.runtime.allocation import NotEnoughMemory, allocated
from lostwax.backends.runtime.driver import Driver
from lostwax.backends.runtime.memory import Buffer, Index, Table
from lostwax.ir.contract.foreign_file import reason
from lostwax.ir.contract.step import TRASH_PAGE
from lostwax.ir.contract.step_plan import Move

GATHERED_PAGES = 16
"""Pages of the device's buffer: 50 MB for DeepSeek-V3.2's of 64 tokens."""
BLOCK_BYTES = 1 << 30
"""Host memory is taken in blocks of at most this much (but of one page at least): torch rounds what
it pins up to a power of two."""
_WORD_BYTES = 8


class HostPages:
    """`num_slots` pages of host memory beside the `planes` (u8 [num_pages * bytes of a page]).

    Raises NotEnoughMemory.
    """

    def __init__(
        self, planes: Sequence[Buffer], num_pages: int, num_slots: int, driver: Driver
    ) -> None:
        self._num_pages = num_pages
        self._num_slots = num_slots
        self._driver = driver
        widths = [plane.nbytes // num_pages for plane in planes]
        whole_words = all(width % _WORD_BYTES == 0 for width in widths)
        self._memory, self._wide = driver.memory, whole_words
        self._planes = [self._table(plane, num_pages) for plane in planes]
        self._slot_bytes = sum(widths)
        what = "a buffer for pages on their way to host memory"
        gathered = allocated(driver, GATHERED_PAGES * self._slot_bytes, what)
        self._gathered = self._table(gathered, GATHERED_PAGES)
        self._slots_a_block = max(BLOCK_BYTES // self._slot_bytes, 1)
        self._blocks = [
            self._block(min(self._slots_a_block, num_slots - first))
            for first in range(0, num_slots, self._slots_a_block)
        ]

    def _table(self, buffer: Buffer, rows: int) -> Table:
        return self._memory.table(buffer, rows, wide=self._wide)

    def _block(self, num_slots: int) -> Table:
        """[num_slots, words of a slot]."""
        num_bytes = num_slots * self._slot_bytes
        try:
            return self._table(self._driver.staging(num_bytes), num_slots)
        # numpy says MemoryError or, beyond what it can count, ValueError; torch says RuntimeError.
        except (MemoryError, RuntimeError, ValueError) as error:
            raise NotEnoughMemory(
                f"{self._num_slots} pages of {self._slot_bytes} bytes cannot be allocated in host"
                f" memory ({reason(error)}); give a smaller --hicache-size"
            ) from error

    def refusal(self, moves: Sequence[Move]) -> str:
        """Why these cannot be made, empty where they can."""
        for move in moves:
            if not TRASH_PAGE < move.page < self._num_pages:
                return f"page {move.page} is moved; there are 1 to {self._num_pages - 1}"
            if not 0 <= move.slot < self._num_slots:
                return f"page {move.slot} of host memory is used; there are {self._num_slots}"
        return ""

    def move(self, moves: Sequence[Move]) -> None:
        """Copy behind what was launched, in order."""
        for run in _runs(moves):
            pages = self._memory.index(np.array([move.page for move in run], np.int64))
            if run[0].is_restore:
                self._restore(run, pages)
            else:
                self._save(run, pages)

    def _save(self, run: Sequence[Move], pages: Index) -> None:
        for plane, columns in self._columns(len(run)):
            self._memory.take_rows(plane, pages, columns)
        for number, move in enumerate(run):
            self._memory.copy(self._slot(move.slot), self._gathered[number])

    def _restore(self, run: Sequence[Move], pages: Index) -> None:
        for number, move in enumerate(run):
            self._memory.copy(self._gathered[number], self._slot(move.slot))
        for plane, columns in self._columns(len(run)):
            self._memory.put_rows(plane, pages, columns)

    def _slot(self, slot: int) -> Table:
        block, number = divmod(slot, self._slots_a_block)
        return self._blocks[block][number]

    def _columns(self, count: int) -> Iterator[tuple[Table, Table]]:
        """Each plane with its columns of the buffer's first `count` rows."""
        first = 0
        for plane in self._planes:
            width = plane.shape[1]
            yield plane, self._gathered[:count, first : first + width]
            first += width


def _runs(moves: Sequence[Move]) -> Iterator[list[Move]]:
    """The moves in order, in lists that may be made at once: all one way, no page or slot twice."""
    run, pages, slots = list[Move](), set[int](), set[int]()
    for move in moves:
        is_met = move.page in pages or move.slot in slots
        if run and (is_met or len(run) == GATHERED_PAGES or move.is_restore != run[0].is_restore):
            yield run
            run, pages, slots = list[Move](), set[int](), set[int]()
        run.append(move)
        pages.add(move.page)
        slots.add(move.slot)
    if run:
        yield run
