"""Chooses what runs next. Knows pages, sequences and budgets, never devices, text or the clock.

Admission is by worst case: a request gets all pages that it may ever need, or waits. Nothing is
preempted, so a running request always ends. The first of its pages may be shared: they are found in
the prefix cache, and its steps begin behind them; before the first step they are looked for once
more, since equal prompts often come at once. Prefill and decode steps take turns while both
have work: neither long prompts nor running answers can starve the other.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass
from typing import Literal

from lostwax.ir.contract.program import HEADS, Head
from lostwax.ir.contract.step_state import NO_SEQ
from lostwax.server.engine.pages import PageAllocator
from lostwax.server.engine.prefix_cache import NO_PAGE, Prefix, PrefixCache
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
        heads: set[Head] = {chunk.head for chunk in self.chunks}
        return heads.pop() if len(heads) == 1 else HEADS[max(map(HEADS.index, heads))]


class Scheduler:
    """Waiting requests in order of arrival, running ones, and the pages that they hold.

    `max_drafts` tokens are drafted at most for a request between two decode steps. Without
    `prefix_cache` no page is kept and none is shared.
    """

    def __init__(self, limits: Limits, max_drafts: int = 0, *, prefix_cache: bool = True) -> None:
        self.limits = limits
        self._max_drafts = max_drafts
        self.pages = PageAllocator(limits.num_pages)
        self._cache = PrefixCache(self.pages, limits.page_tokens) if prefix_cache else None
        self._blocked: Req | None = None
        """Who lacked room when `_num_free` pages were free, whatever it found in the cache then."""
        self._num_free = 0
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

    def remove(self, req: Req, *, has_failed: bool = False) -> None:
        """Forget a finished, failed or cancelled request and free its pages and its row.

        What a failed one holds is found by nobody any more, whoever wrote it.
        """
        if has_failed and self._cache:
            for page in req.pages[: len(req.page_keys)]:
                self._cache.drop(page)
            req.page_keys = []
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
        req.num_cached = req.num_drafted = req.num_found = 0
        self.waiting.appendleft(req)

    def _take_back(self, req: Req) -> None:
        self.running.remove(req)
        heapq.heappush(self._free_seqs, req.seq)
        req.seq = NO_SEQ
        # At once, steps in flight or not: who gets pages and row writes them in a later step.
        for index in reversed(range(len(req.pages))):
            if self._cache and index < len(req.page_keys):
                self._cache.refresh(req.page_keys[index])  # another's page of the same content
            self.pages.release([req.pages[index]], req.name)
        req.pages, req.page_keys = [], []

    def enter_pages(self, step: ScheduledStep) -> None:
        """Let the pages that a committed step has filled enter the prefix cache.

        Their rows hold, and so does the token behind them: no later step writes them.
        """
        if self._cache is None:
            return
        size = self.limits.page_tokens
        for chunk in step.chunks:
            req = chunk.req
            if req.num_cached < (len(req.page_keys) + 1) * size or req.seq == NO_SEQ:
                continue  # no page is full, or it has ended or was preempted and has none
            num_full = min(req.num_cached, len(req.tokens) - 1) // size
            for index in range(len(req.page_keys), num_full):
                before = req.page_keys[-1] if req.page_keys else NO_PAGE
                key = self._cache.key(before, req.tokens, index)
                has_drafts = (index + 1) * size <= req.num_drafted
                self._cache.enter(key, req.pages[index], has_drafts=has_drafts)
                req.page_keys.append(key)

    def schedule(self) -> ScheduledStep | None:
        """The next step, or None when nothing can run."""
        self._admit()
        extend = self._plan_extend if any([r.is_prefilling for r in self.running]) else None
        decode = self._plan_decode if any(map(_is_decoding, self.running)) else None
        first, second = (extend, decode) if self._last_entry == "decode" else (decode, extend)
        plan = first or second
        if plan is None:
            return None
        step = plan()
        self._last_entry = step.entry
        return step

    def check_integrity(self) -> None:
        """No page is lost, no sequence lost or shared; every request holds what its rows need, and
        shares no page that a step of it will write."""
        self.pages.check_integrity()
        if self._cache:
            self._cache.check_integrity()
        for req in self.running:
            self._check_pages(req)
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
        held = {page for req in self.running for page in req.pages}
        assert len(held) + self.pages.num_free == self.pages.num_usable, "a page belongs to nobody"

    def _check_pages(self, req: Req) -> None:
        size, num_full = self.limits.page_tokens, len(req.page_keys)
        assert num_full * size <= min(req.num_cached, len(req.tokens) - 1), f"{req.name}: too early"
        assert req.num_drafted <= req.num_cached, f"{req.name}: drafts of no rows"
        before = NO_PAGE
        for index, key in enumerate(req.page_keys):
            assert self._cache, "a page has a key, and there is no cache"
            assert key == self._cache.key(before, req.tokens, index), f"{req.name}: another key"
            before = key
        for page in req.pages[req.num_cached // size :]:
            assert not self.pages.is_shared(page), f"{req.name} will write a shared page"

    def _admit(self) -> None:
        # Strictly first come, first served: a large request at the head is not overtaken for ever.
        while self.waiting and len(self.running) < self.limits.max_reqs:
            req = self.waiting[0]
            if req.num_in_flight:  # preempted: what comes back is still to be added to its tokens
                return
            is_blocked = self._blocked is req and self._num_free == self.pages.num_free
            if is_blocked and not self._has_grown(req):
                return  # no page came back, and none that it might share has entered
            if not self._take_pages(req):
                self._blocked, self._num_free = req, self.pages.num_free
                return
            self._blocked = None
            req.seq = heapq.heappop(self._free_seqs)
            req.num_known = len(req.tokens)
            self.running.append(self.waiting.popleft())

    def _take_pages(self, req: Req) -> bool:
        """Give a request all pages that it may ever need, those of a known prefix first; False,
        and none, where too few are free."""
        size, prefix = self.limits.page_tokens, self._find(req)
        req.page_keys = prefix.keys  # of who waits, too: they are not computed again
        count = req.max_pages(size) - len(prefix.pages)
        if count + sum(map(self.pages.is_idle, prefix.pages)) > self.pages.num_free:
            return False
        self.pages.share(prefix.pages, req.name)
        if self._cache:
            self._cache.make_room(count)
        req.pages = prefix.pages + self.pages.allocate(count, req.name)
        self._begin_behind(req, prefix)
        return True

    def _find_more(self, req: Req) -> None:
        """Let a request that runs, and has begun nothing, share pages that have entered since it
        was looked for; it gives back as many of its own, which nobody has written for it."""
        if not self._has_grown(req):
            return
        prefix, num_shared = self._find(req), len(req.page_keys)
        more = prefix.pages[num_shared:]
        if not more:
            return
        own = slice(num_shared, len(prefix.pages))
        self.pages.share(more, req.name)
        self.pages.release(req.pages[own], req.name)
        req.pages[own], req.page_keys = more, prefix.keys
        self._begin_behind(req, prefix)
        self._blocked = None  # who waits may share pages that were idle, and now cost nothing

    def _begin_behind(self, req: Req, prefix: Prefix) -> None:
        """Count the rows of found pages, and no longer those that were found before."""
        num_found = len(prefix.pages) * self.limits.page_tokens
        req.num_cached += num_found - req.num_found
        req.num_found = num_found
        req.num_drafted = num_found if self._drafts_for(req) else 0

    def _find(self, req: Req) -> Prefix:
        """What the cache holds of a request's tokens now."""
        if self._cache is None:
            return Prefix()
        req.num_entered = self._cache.num_entered
        # A row is left to run in any case: what stands behind the last token, nobody knows.
        most = req.max_found // self.limits.page_tokens
        drafts = self._drafts_for(req)
        return self._cache.find(req.tokens, most, with_drafts=drafts, known=req.page_keys)

    def _has_grown(self, req: Req) -> bool:
        """Whether a page has entered the cache since a request was looked for there."""
        return self._cache is not None and self._cache.num_entered > req.num_entered

    def _drafts_for(self, req: Req) -> bool:
        return self._max_drafts > 0 and req.wants_drafts

    def _plan_extend(self) -> ScheduledStep:
        chunks: list[Chunk] = []
        tokens_left = self.limits.max_tokens
        for req in self.running:
            if not req.is_prefilling or tokens_left == 0:
                continue
            if not req.has_begun:
                self._find_more(req)
                if req.cached_tokens is None:
                    req.cached_tokens = req.num_found
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
