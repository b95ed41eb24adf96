"""Chooses what runs next. Knows pages, sequences and budgets, never devices, text or the clock.

A request begins once pages for its known tokens are free, and grows as it goes on. Where no page is
left, who ranks last gives all of its own back and runs again later: the first never does, so it
always ends. Requests wait by rank; those behind one that lacks room may pass it for a while. The
first of a request's pages may be shared: they are found in the prefix cache, and its steps begin
behind them; before the first step they are looked for once more, and waited for while a step writes
them, since equal prompts often come at once. Choices of one prompt, which come as one request, wait
outside the queue until the first has run it. What the tier in host memory holds behind them is
brought back then; where others run, a bounded number of pages a step, and the request waits for the
rest. Prefill and decode steps take turns while both have work; how long steps took, which it is
told, bounds what a prefill step costs those that decode. Few answers whose last tokens are known
here have a row each in the prefill step itself (a mixed step), and seldom a decode step.
"""

from __future__ import annotations

import heapq
from collections.abc import Generator, Sequence
from contextlib import contextmanager

import msgspec

from lostwax.ir.contract.step_state import NO_SEQ
from lostwax.server.engine.choices import Choices
from lostwax.server.engine.draft_length import DraftLength
from lostwax.server.engine.extend_budget import MIN_ROWS, ExtendBudget
from lostwax.server.engine.messages import Failed, Output
from lostwax.server.engine.options import EngineOptions
from lostwax.server.engine.prompt_rows import PromptRows
from lostwax.server.engine.request import Chunk, Rank, Req
from lostwax.server.engine.request_pages import RequestPages
from lostwax.server.engine.runtime import Limits
from lostwax.server.engine.scheduled_step import ScheduledStep
from lostwax.server.engine.starting import Starting

MIXED_IN_A_ROW = 8
"""Mixed steps before a decode step, whose time bounds the next: it changes as answers come and
grow."""


class Scheduler:
    """Waiting and running requests, and the pages that they hold, within limits and options.

    `by_row` is what the runtime says of its steps (`Runtime.pays_by_row`).
    """

    def __init__(self, limits: Limits, options: EngineOptions, *, by_row: bool = False) -> None:
        self.limits = limits
        self.max_running = _at_most(options.max_running, limits.max_reqs)
        self._max_context = _at_most(options.max_context, limits.max_context)
        self._max_rows = _at_most(options.max_extend_rows, limits.max_tokens)
        self.max_drafts = _at_most(options.max_drafts, limits.max_drafts)
        stall = options.max_stall
        self._budget = None if stall is None else ExtendBudget(stall, self._max_rows, by_row=by_row)
        is_choice = options.adapt_drafts and self.max_drafts > 1
        self._draft_length = DraftLength(self.max_drafts) if is_choice else None
        self._holdings = RequestPages(limits, self.max_drafts, prefix_cache=options.prefix_cache)
        self.pages = self._holdings.allocator
        self.host_tier = self._holdings.tier
        self._starting = Starting(self._holdings)
        self.waiting = self._starting.waiting
        look_again = self._starting.look_again  # who waits may share pages that were idle
        self._choices = Choices()
        self._prompt_rows = PromptRows(self._budget, self._holdings, look_again)
        self.running: list[Req] = []
        self._num_arrived = 0
        self.num_preempted = 0
        self._free_seqs = list(range(NO_SEQ + 1, NO_SEQ + 1 + limits.max_reqs))  # a heap
        self._owes_decode = False
        """Whether answers under way go on before prompts do."""
        self._num_mixed = 0
        """Mixed steps since the last decode step."""

    @property
    def learns_times(self) -> bool:
        """Whether it matters here what steps take."""
        return self._budget is not None

    @contextmanager
    def exploring(self) -> Generator[None]:
        """Meanwhile prefill steps may take too long: nobody waits."""
        if self._budget is not None:
            self._budget.explores = True
        yield
        if self._budget is not None:
            self._budget.explores = False

    @property
    def shares_prompts(self) -> bool:
        """Whether pages of one prompt are found by another."""
        return self._holdings.has_cache

    @property
    def max_context(self) -> int:
        """Tokens of the longest request that can ever run."""
        held = self.pages.num_usable * self.limits.page_tokens
        return min(self._max_context, held)

    @property
    def num_prefix_tokens(self) -> int:
        """Prompt tokens whose rows lay in the prefix cache, the first time that a request ran."""
        return self._prompt_rows.num_prefix_tokens

    @property
    def num_held(self) -> int:
        """Choices that wait for the first of theirs to run their prompt."""
        return len(self._choices)

    def held_behind(self, first: Req) -> list[Req]:
        """The choices that wait for this one."""
        return self._choices.behind(first)

    @property
    def has_work(self) -> bool:
        """Whether any request waits or runs."""
        return bool(self.waiting or self.running)

    def add(self, first: Req, *others: Req) -> None:
        """Queue a request that fits (`max_context`), and other choices of its prompt, which wait
        for its pages where they can share any."""
        assert first.num_prompt > 0
        assert first.submit.num_tokens <= self.max_context
        for req in (first, *others):
            req.rank = (req.submit.priority, self._num_arrived)
            self._num_arrived += 1
        self._starting.push(first)
        if others and self._holdings.num_sharable(first):
            self._choices.hold(first, others)
        else:
            for req in others:
                self._starting.push(req)

    def find(self, name: str) -> Req | None:
        """The queued or running request of that name."""
        waiting = self.waiting.get(name) or self._choices.get(name)
        return waiting or next((req for req in self.running if req.name == name), None)

    def remove(self, req: Req, *, has_failed: bool = False) -> None:
        """Forget a finished, failed or cancelled request and free its pages and its row.

        What a failed one holds is found by nobody any more, whoever wrote it.
        """
        if has_failed:
            self._holdings.drop_kept(req)
        if req in self.waiting:
            self._starting.remove(req)
        elif self._choices.get(req.name) is req:
            self._choices.remove(req)
        else:
            self._take_back(req)
        req.ended = True
        heir = self._choices.succeed(req)
        if heir is not None:
            self._starting.push(heir)

    def preempt(self, req: Req) -> None:
        """Take pages and row from a running request; it waits at its rank, and runs all its tokens
        again once no step of it is in flight."""
        self._take_back(req)
        req.has_entered = False
        req.num_cached = req.num_drafted = req.num_found = req.num_told = 0
        self.num_preempted += 1
        self._starting.push(req)

    def _take_back(self, req: Req) -> None:
        self.running.remove(req)
        heapq.heappush(self._free_seqs, req.seq)
        req.seq = NO_SEQ
        self._holdings.take_back(req)

    def enter_pages(self, step: ScheduledStep) -> None:
        """Let the pages that a committed step has filled enter the prefix cache, and who waited
        for the last of a prompt's look for them."""
        for chunk in step.chunks:
            self._holdings.enter(chunk)
            if self._choices and chunk.req.num_cached >= self._holdings.num_sharable(chunk.req):
                for req in self._choices.release(chunk.req):
                    self._starting.push(req)

    def note_times(self, step: ScheduledStep, seconds: float) -> None:
        """Learn from how long a committed step took what others may."""
        if self._budget is None:
            return
        if step.entry == "decode":
            is_beside = any([req.is_prefilling for req in self.running])
            self._budget.note_decode(len(step.chunks), seconds, is_beside=is_beside)
            return
        num_rows = sum([chunk.count for chunk in step.chunks])
        context = max([chunk.end for chunk in step.chunks])
        num_seen = sum([chunk.count * chunk.end for chunk in step.chunks])
        is_even = 2 * num_seen >= num_rows * context
        self._budget.note_extend(num_rows, context, seconds, is_even=is_even)

    def note_drafts(
        self, step: ScheduledStep, events: Sequence[Output | Failed], seconds: float
    ) -> None:
        """Learn from what a committed decode step gave how many drafts pay."""
        if self._draft_length is not None and step.entry == "decode":
            num_tokens = sum(len(event.tokens) for event in events if isinstance(event, Output))
            self._draft_length.note(len(step.chunks), num_tokens, seconds)

    def schedule(self) -> ScheduledStep | None:
        """The next step, or None when nothing can run."""
        self._admit()
        if self._owes_decode:
            step = self._decode() or self._extend()
        else:
            step = self._extend() or self._decode()
        if step is None:  # nobody runs whom it could keep waiting
            step = self._extend(is_bounded=False)
        if step is None:
            return None
        self._num_mixed = self._num_mixed + 1 if step.is_mixed else 0
        is_owed = not step.is_mixed or self._num_mixed == MIXED_IN_A_ROW
        self._owes_decode = step.entry == "extend" and is_owed
        moves = self._holdings.take_moves(step.chunks)
        return msgspec.structs.replace(step, moves=moves) if moves else step

    def forget_host_pages(self) -> None:
        """What was copied with a step that failed, nobody knows: neither what lies in the host, nor
        what requests hold that were to begin behind pages from there."""
        if self.host_tier is None:
            return
        self.host_tier.clear()
        for req in [req for req in self.running if req.host_keys and not req.has_begun]:
            self.preempt(req)

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
        for req in self.waiting:
            self._holdings.check_waiting(req)
        seqs = sorted([*self._free_seqs, *(req.seq for req in self.running)])
        every = list(range(NO_SEQ + 1, NO_SEQ + 1 + self.limits.max_reqs))
        assert seqs == every, "a sequence is lost or shared"
        assert all(req.seq == NO_SEQ for req in self.waiting), "a waiting request has a sequence"
        assert not any(req.pages for req in self._choices), "a held choice holds pages"
        for first in self._choices.firsts():
            assert first in self.waiting or first in self.running, "choices wait for nobody"
        held = {page for req in self.running for page in req.pages}
        assert len(held) + self.pages.num_free == self.pages.num_usable, "a page belongs to nobody"

    def _admit(self) -> None:
        while len(self.running) < self.max_running:
            req = self._starting.next(self.running)
            if req is None:
                return
            req.seq = heapq.heappop(self._free_seqs)
            req.num_known = len(req.tokens)
            self.running.append(req)

    def _extend(self, *, is_bounded: bool = True) -> ScheduledStep | None:
        """A step of known tokens, if any are to be run; `is_bounded`: who is to bring back more
        from the host than goes with a step waits."""
        if not any([req.is_prefilling for req in self.running]):
            return None
        decoding = [req for req in self.running if req.is_decoding]
        answers = self._next_rows(decoding) if self._may_mix(decoding) else []
        chunks = self._prompt_rows.share(
            self.running,
            answers,
            len(decoding),
            most=min(self._max_rows, self.limits.max_tokens - len(answers)),
            is_bounded=is_bounded,
        )
        if not chunks:
            return None  # who had known tokens gave its pages to answers
        drafts = self._drafts([*answers, *chunks], len(decoding))
        return ScheduledStep("extend", (*answers, *chunks), drafts, num_answers=len(answers))

    def _may_mix(self, decoding: list[Req]) -> bool:
        """Whether answers under way may go on in a prefill step: few of them, as it takes tokens
        that are known here, and verifies no drafts."""
        if self._budget is None or not self._budget.knows_decode(len(decoding)):
            return False
        # Programs of more rows are made for many rows a request: a row each is dear there.
        are_few = 4 * len(decoding) <= MIN_ROWS and len(decoding) < self.limits.max_tokens
        return are_few and not any([req.num_in_flight or req.drafts for req in decoding])

    def _decode(self) -> ScheduledStep | None:
        """A step of all answers that are under way, and have pages for it."""
        decoding = [req for req in self.running if req.is_decoding]
        chunks = self._next_rows(decoding)
        if not chunks:
            return None
        return ScheduledStep("decode", tuple(chunks), self._drafts(chunks, len(decoding)))

    def _next_rows(self, decoding: list[Req]) -> list[Chunk]:
        """The next rows of answers under way that have pages for them."""
        chunks = [Chunk.of_next(req) for req in decoding]
        lacking = self._holdings.lacking(chunks)
        return self._with_pages(chunks, lacking) if lacking else chunks

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


def _at_most(asked: int | None, most: int) -> int:
    return most if asked is None else min(asked, most)


def _rank(req: Req) -> Rank:
    return req.rank
