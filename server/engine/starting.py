"""Chooses who of those that wait begins to run. Knows room for pages and who may pass whom.

Who lacks room is looked at again when there may be more: pages came back, some entered the prefix
cache, or somebody joined or left the queue. A look costs the same for any context where requests
that run hold what was found: it is remembered, and only what changed behind it is looked at. Pages
of it that are idle are counted anew whenever somebody took idle pages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lostwax.server.engine.request import Req
from lostwax.server.engine.request_pages import RequestPages
from lostwax.server.engine.waiting import WaitingQueue


class Starting:
    """Requests that wait for room among the pages of `holdings`."""

    def __init__(self, holdings: RequestPages) -> None:
        self._holdings = holdings
        self.waiting = WaitingQueue()
        self._seen: _Room | None = None
        """What there was when nobody who waits had room."""

    def push(self, req: Req) -> None:
        """Let a request wait at its rank."""
        self.waiting.push(req)
        self.look_again()

    def remove(self, req: Req) -> None:
        """Take a request out, wherever it stands."""
        self.waiting.remove(req)
        req.prefix = None
        self.look_again()  # those behind it may be looked at, or be the first

    def look_again(self) -> None:
        """Who waits may have room though no page came back and none entered."""
        self._seen = None

    def next(self, running: Sequence[Req]) -> Req | None:
        """Who begins beside those that run, if anybody has room: it waits no more, and has pages
        for all its known tokens."""
        first = self.waiting.first()
        if first is None or first.num_in_flight:
            return None  # of a preempted one, what comes back is still to be added to its tokens
        room = self._room(running)
        if not room.is_more_than(self._seen):
            return None
        self._seen = room
        req = self._fitting(first, room.num_pages)
        if req is not None:
            self.waiting.remove(req)
            self.look_again()
        return req

    def _fitting(self, first: Req, num_pages: int) -> Req | None:
        """Who has room in so many pages, of the first and those who may pass it."""
        if self._holdings.admit(first, num_pages):
            return first
        for req in self.waiting.passing():
            if req.num_in_flight:
                self.look_again()  # it was not looked at: what comes back is added to it first
            elif self._holdings.admit(req, num_pages):
                self.waiting.note_passed()
                return req
        return None

    def _room(self, running: Sequence[Req]) -> _Room:
        # A page is spared for each that runs: else the next step would preempt who just began.
        num_growing = sum(map(self._holdings.may_grow, running))
        num_pages = self._holdings.allocator.num_free - num_growing
        return _Room(num_pages, self._holdings.num_entered)


@dataclass(frozen=True, slots=True)
class _Room:
    """What a request that waits could have: free pages beside those that others will ask for, and
    how many pages had entered the prefix cache."""

    num_pages: int
    num_entered: int

    def is_more_than(self, other: _Room | None) -> bool:
        """Whether anything may have room now that had none then."""
        if other is None:
            return True
        return self.num_pages > other.num_pages or self.num_entered > other.num_entered
