"""Chooses what runs next. Knows pages, sequences and budgets, never devices, text or the clock.

A request begins once pages for its known tokens are free, and grows as it goes on. Where no page is
left, who ranks last gives all of its own back and runs again later: the first never does, so it
always ends. Requests wait by rank; those behind one that lacks room may pass it for a while. The
first of a request's pages may be shared: they are found in the prefix cache, and its steps begin
behind them; before the first step they are looked for once more, since equal prompts often come at
once. What the tier in host memory holds behind them is brought back then; where others run, a
bounded number of pages a step, and the request waits for the rest. Prefill and decode steps take
turns while both have work; how long steps took, which it is told, bounds what a prefill step costs
those that decode.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from lostwax.ir.contract.program import HEADS, Head
from lostwax.ir.contract.step_plan import Move
from lostwax.ir.contract.step_state import NO_SEQ
from lostwax.server.engine.draft_length import DraftLength
from lostwax.server.engine.extend_budget import ExtendBudget
from lostwax.server.engine.messages import Failed, Output
from lostwax.server.engine.options import EngineOptions
from lostwax.server.engine.request import Chunk, Rank, Req
from lostwax.server.engine.request_pages import RequestPages
from lostwax.server.engine.runtime import Limits
from lostwax.server.engine.waiting import WaitingQueue


class ScheduledStep(msgspec.Struct, frozen=True):
    """The chunks of one step, in row order; `drafts` tokens are guessed behind it at most."""

    entry: Literal["extend", "decode"]
    chunks: tuple[Chunk, ...]
    drafts: int = 0
    moves: tuple[Move, ...] = ()
    """Pages that are copied between device and host before it."""

    @property
    def head(self) -> Head:
        """The least head that gives all logit rows what they want."""
        heads: set[Head] = {chunk.head for chunk in self.chunks}
        return heads.pop() if len(heads) == 1 else HEADS[max(map(HEADS.index, heads))]


class Scheduler:
    """Waiting and running requests, and the pages that they hold, within limits and options."""

    def __init__(self, limits: Limits, options: EngineOptions) -> None:
        self.limits = limits
        self.max_running = _at_most(options.max_running, limits.max_reqs)
        self._max_context = _at_most(options.max_context, limits.max_context)
        self._max_rows = _at_most(options.max_extend_rows, limits.max_tokens)
        self.max_drafts = _at_most(options.max_drafts, limits.max_drafts)
        stall = options.max_stall
        self._budget = None if stall is None else ExtendBudget(stall, self._max_rows)
        is_choice = options.adapt_drafts and self.max_drafts > 1
        self._draft_length = DraftLength(self.max_drafts) if is_choice else None
        self._holdings = RequestPages(limits, self.max_drafts, prefix_cache=options.prefix_cache)
        self.pages = self._holdings.allocator
        self.waiting = WaitingQueue()
        self.running: list[Req] = []
        self._seen: _Room | None = None
        """What there was when nobody who waits had room."""
        self._num_arrived = 0
        self.num_preempted = 0
        self.num_prefix_tokens = 0
        """Prompt tokens whose rows lay in the prefix cache, the first time that a request ran."""
        self._free_seqs = list(range(NO_SEQ + 1, NO_SEQ + 1 + limits.max_reqs))  # a heap
        self._last_entry: Literal["extend", "decode"] = "decode"

    @property
    def max_context(self) -> int:
        """Tokens of the longest request that can ever run."""
        held = self.pages.num_usable * self.limits.page_tokens
        return min(self._max_context, held)

    @property
    def has_work(self) -> bool:
        """Whether any request waits or runs."""
        return bool(self.waiting or self.running)

    def add(self, req: Req) -> None:
        """Queue a request that fits (`max_context`)."""
        assert req.num_prompt > 0
        assert req.submit.num_tokens <= self.max_context
        req.rank = (req.submit.priority, self._num_arrived)
        self._num_arrived += 1
        self.waiting.push(req)

    def find(self, name: str) -> Req | None:
        """The queued or running request of that name."""
        waiting = self.waiting.get(name)
        return waiting or next((req for req in self.running if req.name == name), None)

    def remove(self, req: Req, *, has_failed: bool = False) -> None:
        """Forget a finished, failed or cancelled request and free its pages and its row.

        What a failed one holds is found by nobody any more, whoever wrote it.
        """
        if has_failed:
            self._holdings.drop_kept(req)
        if req in self.waiting:
            self.waiting.remove(req)
            req.page_keys = []
            self._seen = None  # those behind it may be looked at, or be the first
        else:
            self._take_back(req)
        req.ended = True

    def preempt(self, req: Req) -> None:
        """Take pages and row from a running request; it waits at its rank, and runs all its tokens
        again once no step of it is in flight."""
        self._take_back(req)
        req.has_entered = False
        req.num_cached = req.num_drafted = req.num_found = req.num_told = 0
        self.num_preempted += 1
        self._seen = None  # it may need less than those that were looked at
        self.waiting.push(req)

    def _take_back(self, req: Req) -> None:
        self.running.remove(req)
        heapq.heappush(self._free_seqs, req.seq)
        req.seq = NO_SEQ
        self._holdings.take_back(req)

    def enter_pages(self, step: ScheduledStep) -> None:
        """Let the pages that a committed step has filled enter the prefix cache."""
        for chunk in step.chunks:
            self._holdings.enter(chunk)

    def note(self, step: ScheduledStep, events: Sequence[Output | Failed], seconds: float) -> None:
        """Learn from what a committed step gave, and how long it took."""
        if step.entry == "extend":
            if self._budget is not None:
                self._budget.note_extend(sum(chunk.count for chunk in step.chunks), seconds)
            return
        if self._budget is not None:
            self._budget.note_decode(seconds)
        if self._draft_length is not None:
            num_tokens = sum(len(event.tokens) for event in events if isinstance(event, Output))
            self._draft_length.note(len(step.chunks), num_tokens, seconds)

    def schedule(self) -> ScheduledStep | None:
        """The next step, or None when nothing can run."""
        self._admit()
        if self._last_entry == "decode":
            step = self._extend() or self._decode()
        else:
            step = self._decode() or self._extend()
        if step is None:  # nobody runs whom it could keep waiting
            step = self._extend(is_bounded=False)
        if step is None:
            return None
        self._last_entry = step.entry
        moves = self._holdings.take_moves(step.chunks)
        return msgspec.structs.replace(step, moves=moves) if moves else step

    def forget_host_pages(self) -> None:
        """What was copied with a step that failed, nobody knows: neither what lies in the host, nor
        what requests hold that were to begin behind pages from there."""
        if self._holdings.tier is None:
            return
        self._holdings.tier.clear()
        for req in [req for req in self.running if req.host_keys and not req.has_begun]:
            self.preempt(req)

    @property
    def num_host_pages(self) -> int:
        """Pages that host memory takes in."""
        return 0 if self._holdings.tier is None else self.limits.num_host_pages

    @property
    def num_host_moves(self) -> tuple[int, int]:
        """Pages that ever were saved to host memory, and restored from there."""
        tier = self._holdings.tier
        return (0, 0) if tier is None else (tier.num_saved, tier.num_restored)

    def check_integrity(self) -> None:
        """No page is lost, no sequence lost or shared; every request holds what its rows need, and
        shares no page that a step of it will write."""
        self._holdings.check_cache()
        for req in self.running:
            self._holdings.check_integrity(req)
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

    def _admit(self) -> None:
        while len(self.running) < self.max_running:
            first = self.waiting.first()
            if first is None or first.num_in_flight:
                return  # of a preempted one, what comes back is still to be added to its tokens
            room = self._room()
            if not room.is_more_than(self._seen):
                return
            self._seen = room
            if not self._admit_any(first):
                return
            self._seen = None

    def _admit_any(self, first: Req) -> bool:
        """Let the first run that has room, of the first and those who may pass it."""
        if self._try(first):
            return True
        for req in self.waiting.passing():
            if req.num_in_flight:
                self._seen = None  # it was not looked at: what comes back is added to it first
            elif self._try(req):
                self.waiting.note_passed()
                return True
        return False

    def _try(self, req: Req) -> bool:
        # Room for a page of each that runs: else the next step would preempt who just began.
        if not self._holdings.admit(req, spare=self._num_growing()):
            return False
        self.waiting.remove(req)
        req.seq = heapq.heappop(self._free_seqs)
        req.num_known = len(req.tokens)
        self.running.append(req)
        return True

    def _num_growing(self) -> int:
        return sum(map(self._holdings.may_grow, self.running))

    def _room(self) -> _Room:
        num_pages = self.pages.num_free - self._num_growing()
        return _Room(num_pages, self._num_arrived, self._holdings.num_entered)

    def _extend(self, *, is_bounded: bool = True) -> ScheduledStep | None:
        """A step of known tokens, if any are to be run; `is_bounded`: who is to bring back more
        from the host than goes with a step waits."""
        prefilling = [req for req in self.running if req.is_prefilling]
        if not prefilling:
            return None
        chunks, rows_left = list[Chunk](), self._max_rows
        num_decoding = sum([req.is_decoding for req in self.running])
        if num_decoding and self._budget is not None:
            rows_left = self._budget.rows
        for req in prefilling:
            if rows_left == 0:
                break
            if not req.has_begun:
                if self._holdings.find_more(req):
                    self._seen = None  # who waits may share pages that were idle, and cost nothing
                if not self._holdings.bring_back(req, is_bounded=is_bounded):
                    continue
                if req.cached_tokens is None:
                    req.cached_tokens = req.num_found
                    self.num_prefix_tokens += req.num_found
            rows = min(req.num_known - req.num_planned, rows_left)
            chunks.append(Chunk.of_known(req, rows))
            rows_left -= rows
        if not chunks:
            return None
        return ScheduledStep("extend", tuple(chunks), self._drafts(chunks, num_decoding))

    def _decode(self) -> ScheduledStep | None:
        """A step of all answers that are under way, and have pages for it."""
        chunks = [Chunk.of_next(req) for req in self.running if req.is_decoding]
        num_decoding = len(chunks)
        lacking = self._holdings.lacking(chunks)
        if lacking:
            chunks = self._with_pages(chunks, lacking)
        if not chunks:
            return None
        return ScheduledStep("decode", tuple(chunks), self._drafts(chunks, num_decoding))

    def _with_pages(self, chunks: list[Chunk], lacking: list[Chunk]) -> list[Chunk]:
        """Those of the chunks whose requests have pages for their rows, once those that lack some
        were given them, by rank."""
        left_out = set[Chunk]()
        for chunk in sorted(lacking, key=lambda chunk: chunk.req.rank):
            if chunk.req.seq != NO_SEQ and not self._grow(chunk):
                left_out.add(chunk)
        return [c for c in chunks if c.req.seq != NO_SEQ and c not in left_out]

    def _grow(self, chunk: Chunk) -> bool:
        """Give a chunk the pages of its rows, if need be those of who ranks behind its request."""
        num_lacking = self._holdings.lacks(chunk.req, chunk.end)
        behind = sorted([r for r in self.running if r.rank > chunk.req.rank], key=_rank)
        while num_lacking > self.pages.num_free:
            if not behind:
                return False  # it keeps what it has, and waits for who ranks before it
            self.preempt(behind.pop())
        self._holdings.grow(chunk.req, num_lacking)
        return True

    def _drafts(self, chunks: Sequence[Chunk], num_decoding: int) -> int:
        """Tokens to draft behind a step while so many answers are under way."""
        most = self.max_drafts
        if not most:
            return 0
        if self._draft_length is not None:
            most = self._draft_length.choose(num_decoding)
        return max([chunk.num_drafts(most) for chunk in chunks])


@dataclass(frozen=True, slots=True)
class _Room:
    """What a request that waits could have: free pages beside those that others will ask for, and
    how many requests had arrived, and pages entered the prefix cache."""

    num_pages: int
    num_arrived: int
    num_entered: int

    def is_more_than(self, other: _Room | None) -> bool:
        """Whether anything may have room now that had none then."""
        if other is None:
            return True
        if self.num_arrived > other.num_arrived or self.num_entered > other.num_entered:
            return True
        return self.num_pages > other.num_pages


def _at_most(asked: int | None, most: int) -> int:
    return most if asked is None else min(asked, most)


def _rank(req: Req) -> Rank:
    return req.rank
