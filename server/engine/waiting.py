"""Requests that wait, in the order in which they may run. Knows priorities and arrival, no pages.

Small ones may pass the first, which lacks room, but not for ever: each that does makes it older,
and nobody passes one that is old.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import count

from lostwax.server.engine.request import Rank, Req

LOOK_AHEAD = 16
"""Requests behind the first that are looked at when it lacks room: a step's cost must not follow
the queue's length."""

MAX_PASSED = 64
"""Requests that may pass one while it is first: about twice what runs at once."""


_Entry = tuple[Rank, int, Req]
"""A request in the heap; the number is its own, so that no two entries are compared further."""


class WaitingQueue:
    """Requests by rank. What a call costs grows with the logarithm of their number."""

    def __init__(self) -> None:
        self._heap: list[_Entry] = []
        """Those of the waiting, and of some that were taken out since: these are passed over."""
        self._waiting: dict[str, _Entry] = {}
        self._numbers = count()

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Req]:
        """All of them, in no order."""
        return (req for _, _, req in self._waiting.values())

    def __contains__(self, req: object) -> bool:
        return isinstance(req, Req) and self.get(req.name) is req

    def get(self, name: str) -> Req | None:
        """The waiting request of that name."""
        entry = self._waiting.get(name)
        return entry[2] if entry else None

    def push(self, req: Req) -> None:
        """Let a request wait at the place of its rank."""
        assert req.name not in self._waiting, f"{req.name} waits already"
        entry = (req.rank, next(self._numbers), req)
        self._waiting[req.name] = entry
        heapq.heappush(self._heap, entry)

    def remove(self, req: Req) -> None:
        """Take a request out, wherever it stands."""
        assert req in self, f"{req.name} does not wait"
        del self._waiting[req.name]
        if len(self._heap) > 2 * len(self._waiting) + LOOK_AHEAD:  # else who cancels fills it
            self._heap = list(self._waiting.values())
            heapq.heapify(self._heap)

    def first(self) -> Req | None:
        """Who is next."""
        while self._heap and not self._is_live(self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][2] if self._heap else None

    def passing(self) -> list[Req]:
        """Who may run before the first, in order: some of those behind it, nobody once it is old.

        Whoever does so is counted by `note_passed`.
        """
        first = self.first()
        if first is None or first.num_passed >= MAX_PASSED:
            return []
        taken = [heapq.heappop(self._heap)]
        while self._heap and len(taken) <= LOOK_AHEAD:
            entry = heapq.heappop(self._heap)
            if self._is_live(entry):
                taken.append(entry)
        for entry in taken:
            heapq.heappush(self._heap, entry)
        return [req for _, _, req in taken[1:]]

    def note_passed(self) -> None:
        """A request passes the first."""
        first = self.first()
        assert first is not None, "nobody waits to be passed"
        first.num_passed += 1

    def _is_live(self, entry: _Entry) -> bool:
        return self._waiting.get(entry[2].name) is entry
