"""Chooses what runs next. Knows pages, sequences and budgets, never devices, text or the clock.

Admission is by worst case: a request gets all pages that it may ever need, or waits. Nothing is
preempted, so a running request always ends. Prefill and decode steps take turns while both have
work: neither long prompts nor running answers can starve the other.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass
from typing import Literal

from lostwax.ir.contract.program import HEADS, Head
from lostwax.ir.contract.step_state import NO_SEQ
from lostwax.server.engine.pages import PageAllocator
from lostwax.server.engine.request import Chunk, Req
from lostwax.server.engine.runtime import Limits


@dataclass(frozen=True, slots=True)
class ScheduledStep:
    """The chunks of one step, in row order; `drafts` tokens are guessed behind it at most."""

    entry: Literal["extend", "decode"]
    chunks: tuple[Chunk, ...]
    drafts: int = 0

    @property
    def head(self) -> Head:
        """The least head that gives all logit rows what they want."""
        return HEADS[max([HEADS.index(head) for head in {chunk.head for chunk in self.chunks}])]


class Scheduler:
    """Waiting requests in order of arrival, running ones, and the pages that they hold.

    `max_drafts` tokens are drafted at most for a request between two decode steps.
    """

    def __init__(self, limits: Limits, max_drafts: int = 0) -> None:
        self.limits = limits
        self._max_drafts = max_drafts
        self.pages = PageAllocator(limits.num_pages)
        self.waiting: deque[Req] = deque()
        self.running: list[Req] = []
        self._free_seqs = list(range(NO_SEQ + 1, NO_SEQ + 1 + limits.max_reqs))  # a heap
        self._last_entry: Literal["extend", "decode"] = "decode"

    @property
    def max_context(self) -> int:
        """Tokens of the longest request that can ever run."""
        held = self.pages.num_usable * self.limits.page_tokens
        return min(self.limits.max_context, held)

    @property
    def has_work(self) -> bool:
        """Whether any request waits or runs."""
        return bool(self.waiting or self.running)

    def add(self, req: Req) -> None:
        """Queue a request that fits (`max_context`)."""
        assert req.num_prompt > 0
        assert req.submit.num_tokens <= self.max_context
        self.waiting.append(req)

    def find(self, name: str) -> Req | None:
        """The queued or running request of that name."""
        return next((r for r in (*self.running, *self.waiting) if r.name == name), None)

    def remove(self, req: Req) -> None:
        """Forget a finished, failed or cancelled request and free its pages and its row."""
        if req in self.running:
            self._take_back(req)
        else:
            self.waiting.remove(req)
        req.ended = True

    def preempt(self, req: Req) -> None:
        """Take pages and row from a running request; it waits in front, and runs all its tokens
        again once no step of it is in flight."""
        self._take_back(req)
        req.has_entered = False
        req.num_cached = 0
        self.waiting.appendleft(req)

    def _take_back(self, req: Req) -> None:
        self.running.remove(req)
        heapq.heappush(self._free_seqs, req.seq)
        req.seq = NO_SEQ
        # At once, steps in flight or not: who gets pages and row writes them in a later step.
        self.pages.release(req.pages, req.name)
        req.pages = []

    def schedule(self) -> ScheduledStep | None:
        """The next step, or None when nothing can run."""
        self._admit()
        extend = self._plan_extend if any(r.is_prefilling for r in self.running) else None
        decode = self._plan_decode if any(map(_is_decoding, self.running)) else None
        first, second = (extend, decode) if self._last_entry == "decode" else (decode, extend)
        plan = first or second
        if plan is None:
            return None
        step = plan()
        self._last_entry = step.entry
        return step

    def check_integrity(self) -> None:
        """Pages and sequences are neither lost nor shared, and every request holds what its rows
        need."""
        self.pages.check_integrity()
        for req in self.running:
            assert self.pages.held_by(req.name) == set(req.pages), f"{req.name}: pages differ"
            assert len(req.pages) == req.max_pages(self.limits.page_tokens), f"{req.name}: pages"
            assert req.num_cached <= req.max_rows, f"{req.name} outgrew its pages"
            drafted = len(req.tokens) + len(req.drafts)
            assert not req.drafts or drafted <= req.max_rows, f"{req.name}: drafts need more pages"
            assert (req.num_in_flight == 0) == (req.rows_in_flight == 0), f"{req.name}: in flight"
        assert not any(req.pages for req in self.waiting), "a waiting request holds pages"
        seqs = sorted([*self._free_seqs, *(req.seq for req in self.running)])
        every = list(range(NO_SEQ + 1, NO_SEQ + 1 + self.limits.max_reqs))
        assert seqs == every, "a sequence is lost or shared"
        assert all(req.seq == NO_SEQ for req in self.waiting), "a waiting request has a sequence"
        held = sum(len(req.pages) for req in self.running)
        assert held + self.pages.num_free == self.pages.num_usable, "a page belongs to nobody"

    def _admit(self) -> None:
        # Strictly first come, first served: a large request at the head is not overtaken for ever.
        while self.waiting and len(self.running) < self.limits.max_reqs:
            req = self.waiting[0]
            if req.num_in_flight:  # preempted: what comes back is still to be added to its tokens
                return
            count = req.max_pages(self.limits.page_tokens)
            if count > self.pages.num_free:
                return
            req.pages = self.pages.allocate(count, req.name)
            req.seq = heapq.heappop(self._free_seqs)
            req.num_known = len(req.tokens)
            self.running.append(self.waiting.popleft())

    def _plan_extend(self) -> ScheduledStep:
        chunks: list[Chunk] = []
        tokens_left = self.limits.max_tokens
        for req in self.running:
            if not req.is_prefilling or tokens_left == 0:
                continue
            count = min(req.num_known - req.num_planned, tokens_left)
            chunks.append(Chunk.of_known(req, count))
            tokens_left -= count
        return self._step("extend", chunks)

    def _plan_decode(self) -> ScheduledStep:
        return self._step(
            "decode", [Chunk.of_next(req) for req in filter(_is_decoding, self.running)]
        )

    def _step(self, entry: Literal["extend", "decode"], chunks: list[Chunk]) -> ScheduledStep:
        drafts = 0
        if self._max_drafts:
            drafts = max(chunk.num_drafts(self._max_drafts) for chunk in chunks)
        return ScheduledStep(entry, tuple(chunks), drafts)


def _is_decoding(req: Req) -> bool:
    """Whether its next row is that of its last token, known here or not."""
    return not req.is_prefilling and req.may_go_on
