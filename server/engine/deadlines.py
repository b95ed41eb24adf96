"""When requests must have ended. Knows times that it is given, and no clock.

What a look costs follows those that are overdue, not those that are not.
"""

from __future__ import annotations

import heapq
from itertools import count
from weakref import ref

from lostwax.server.engine.request import Req

FEW = 16
"""Entries below which those of ended requests are not looked for."""


class Deadlines:
    """Requests by the time at which they must have ended."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, ref[Req]]] = []
        """The number is an entry's own, so that no two are compared further. Requests that ended
        in time are passed over, and dropped once the heap has doubled; nothing of theirs is kept
        until then."""
        self._numbers = count()
        self._look_at = FEW

    def __bool__(self) -> bool:
        """Whether some request may become overdue."""
        return bool(self._heap)

    def __len__(self) -> int:
        """Entries, those of ended requests too."""
        return len(self._heap)

    def add(self, req: Req, at_s: float) -> None:
        """A request must have ended by then."""
        if len(self._heap) >= self._look_at:
            self._heap = [entry for entry in self._heap if _running(entry[2])]
            heapq.heapify(self._heap)
            self._look_at = max(2 * len(self._heap), FEW)
        heapq.heappush(self._heap, (at_s, next(self._numbers), ref(req)))

    def overdue(self, now_s: float) -> list[Req]:
        """Those that should have ended before now and have not, each once; the first due first."""
        found: list[Req] = []
        while self._heap and self._heap[0][0] <= now_s:
            req = _running(heapq.heappop(self._heap)[2])
            if req is not None:
                found.append(req)
        return found


def _running(held: ref[Req]) -> Req | None:
    """The request, if it has not ended."""
    req = held()
    return None if req is None or req.ended else req
