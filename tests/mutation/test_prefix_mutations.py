"""Ways to share a wrong page, or to lose a shared one: each must die in the machine of any traffic.

A mutant overrides a method of the scheduler, of a request, or of what keeps pages; never the
product's source.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from engine_machine import EngineMachine
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test
from late_runtime import LateRuntime
from mutant_search import SEARCH

from lostwax.server.engine.loop import EngineBroken, EngineCore
from lostwax.server.engine.messages import Failed, Output
from lostwax.server.engine.options import PLAIN
from lostwax.server.engine.pages import PageAllocator
from lostwax.server.engine.prefix_cache import NO_PAGE, Prefix, PrefixCache
from lostwax.server.engine.prompt_rows import PromptRows
from lostwax.server.engine.request import Chunk, Req
from lostwax.server.engine.request_pages import RequestPages
from lostwax.server.engine.scheduled_step import ScheduledStep
from lostwax.server.engine.scheduler import Scheduler
from lostwax.server.engine.starting import Starting


class _Mutant(EngineCore):
    """An engine of other parts."""

    scheduling: type[Scheduler] = Scheduler
    holding: type[RequestPages] = RequestPages
    caching: type[PrefixCache] = PrefixCache
    paging: type[PageAllocator] = PageAllocator
    starting: type[Starting] = Starting

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        limits = self._runtime.limits
        self.scheduler = self.scheduling(limits, PLAIN)
        holdings = self.holding(limits, limits.max_drafts, prefix_cache=True)
        self.scheduler.pages = holdings.allocator = pages = self.paging(limits.num_pages)
        setattr(holdings, "_cache", self.caching(pages, limits.page_tokens))  # noqa: B010
        starting = self.starting(holdings)
        self.scheduler.waiting = starting.waiting
        rows = PromptRows(None, holdings, starting.look_again)
        parts = {"_holdings": holdings, "_starting": starting, "_prompt_rows": rows}
        for name, part in parts.items():
            setattr(self.scheduler, name, part)


class _EntersDrafts(RequestPages):
    def enter(self, chunk: Chunk) -> None:
        super().enter(chunk)
        req = chunk.req
        tokens = [*req.tokens, *req.drafts]
        held = min(req.num_cached + len(req.drafts), len(tokens) - 1)
        for index in range(len(req.page_keys), held // self._size if req.pages else 0):
            assert self._cache
            before = req.page_keys[-1] if index else NO_PAGE
            key = self._cache.key(before, tokens, index)
            self._cache.enter(key, req.pages[index], before, has_drafts=True)
            req.page_keys.append(key)


class EntersDrafts(_Mutant):
    """A page enters with rows of drafts that nobody has accepted."""

    holding = _EntersDrafts


class _NoTokenBehind(PrefixCache):
    def key(self, before: bytes, tokens: Sequence[int], index: int) -> bytes:
        first = index * self._page_tokens
        own = array("i", tokens[first : first + self._page_tokens])
        return hashlib.sha256(before + own.tobytes()).digest()


class ForgetsTheTokenBehind(_Mutant):
    """The key of a page does not tell what stands behind it."""

    caching = _NoTokenBehind


class _NoPageBefore(PrefixCache):
    def key(self, before: bytes, tokens: Sequence[int], index: int) -> bytes:
        return super().key(NO_PAGE, tokens, index)


class ForgetsThePagesBefore(_Mutant):
    """The key of a page does not tell what stands before it."""

    caching = _NoPageBefore


class _FindsAll(_NoTokenBehind):
    def find(self, tokens: Sequence[int], max_pages: int, **given: Any) -> Prefix:
        return super().find([*tokens, 0], max_pages, **given)


class FindsTheLastRow(_Mutant):
    """What is found may be the whole prompt, so that no row is left to run."""

    caching = _FindsAll


class _AnyPage(PrefixCache):
    def find(self, tokens: Sequence[int], max_pages: int, **given: Any) -> Prefix:
        given["with_drafts"] = False
        return super().find(tokens, max_pages, **given)


class FindsPagesWithoutDrafts(_Mutant):
    """Who drafts takes pages that the MTP layer has not written."""

    caching = _AnyPage


class _OtherRequests(Scheduler):
    requests: type[Req]

    def add(self, first: Req, *others: Req) -> None:
        super().add(*[self.requests(req.submit) for req in (first, *others)])


class _NothingScored(Req):
    @property
    def max_found(self) -> int:
        return len(self.tokens)


class _ScoresNothing(_OtherRequests):
    requests = _NothingScored


class ScoresNothingThatIsFound(_Mutant):
    """Positions that are to be scored are taken from the cache, and give no score."""

    scheduling = _ScoresNothing


class _OwnAgain(RequestPages):
    def admit(self, req: Req, num_pages: int) -> bool:
        took = super().admit(req, num_pages)
        req.num_cached -= req.num_cached > 0
        return took


class WritesASharedPage(_Mutant):
    """The last row that was found runs once more."""

    holding = _OwnAgain


class _OnlyPagesThatComeBack(Starting):
    def _room(self, running: Sequence[Req]) -> Any:
        return replace(super()._room(running), num_entered=0)


class LeavesWhoCouldShareWaiting(_Mutant):
    """Who waits for room is looked at again when pages come back, not when some enter."""

    starting = _OnlyPagesThatComeBack


class _FreesAtOnce(PageAllocator):
    def release(self, pages: Iterable[int], owner: str) -> None:
        for page in pages:
            for each in [name for name, held in self._held.items() if page in held]:
                super().release([page], each)


class FreesWhatOthersHold(_Mutant):
    """A page is free once one of its owners gives it back."""

    paging = _FreesAtOnce


class _AnyKept(PageAllocator):
    def longest_idle(self) -> int:
        return min(self._kept)

    def drop(self, page: int) -> None:
        held = page in self._num_owners
        super().drop(page)
        if held:
            self._blank.append(page)

    def check_integrity(self) -> None:
        """The machine must find out by itself."""


class DropsPagesInUse(_Mutant):
    """Who needs room takes a kept page, whoever holds it."""

    paging = _AnyKept


class _NoRowsForDrafts(RequestPages):
    def _pages_for(self, req: Req, end: int) -> int:
        return req.pages_of(end, self._size)


class ForgetsTheRowsOfDrafts(_Mutant):
    """A request grows by what its step's rows need, and drafts behind the first have no page."""

    holding = _NoRowsForDrafts


class _GrowsLate(RequestPages):
    def lacks(self, req: Req, end: int) -> int:
        return super().lacks(req, end - 1)


class GrowsARowTooLate(_Mutant):
    """The first row of a page is written before the request has it."""

    holding = _GrowsLate


class _GrowsUnseen(RequestPages):
    def grow(self, req: Req, count: int) -> None:
        super().grow(req, count)
        req.num_told += count


class TellsNobodyOfPages(_Mutant):
    """The device never hears of the pages that a request was given behind its first."""

    holding = _GrowsUnseen


class EntersWhatFailed(_Mutant):
    """The rows of a step that failed are kept as if they held."""

    def _fail(self, plans: Sequence[ScheduledStep], error: Exception) -> list[Output | Failed]:
        for chunk in plans[0].chunks:
            if chunk.req.pages:
                chunk.req.num_cached += chunk.count - chunk.picks
        self.scheduler.enter_pages(plans[0])
        for chunk in plans[0].chunks:
            chunk.req.page_keys.clear()
        return super()._fail(plans, error)


NOTICED = (AssertionError, EngineBroken, ValueError)
"""By the machine, because step after step read what it must not, or by the pages' own books."""

MUTANTS = (
    EntersDrafts,
    ForgetsTheTokenBehind,
    ForgetsThePagesBefore,
    FindsTheLastRow,
    FindsPagesWithoutDrafts,
    ScoresNothingThatIsFound,
    WritesASharedPage,
    LeavesWhoCouldShareWaiting,
    FreesWhatOthersHold,
    DropsPagesInUse,
    ForgetsTheRowsOfDrafts,
    GrowsARowTooLate,
    TellsNobodyOfPages,
    EntersWhatFailed,
)


def test_the_engine_of_the_same_parts_survives_the_search() -> None:
    class Machine(EngineMachine):
        def make_core(self, runtime: LateRuntime, depth: int) -> EngineCore:
            return _Mutant(runtime, log=self.log, depth=depth)

    run_state_machine_as_test(Machine, settings=settings(SEARCH, max_examples=100))


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_wrong_sharing_is_noticed(mutant: type[EngineCore]) -> None:
    class Machine(EngineMachine):
        def make_core(self, runtime: LateRuntime, depth: int) -> EngineCore:
            return mutant(runtime, log=self.log, depth=depth)

    with pytest.raises(NOTICED):
        run_state_machine_as_test(Machine, settings=SEARCH)
