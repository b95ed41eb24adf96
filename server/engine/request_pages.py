"""Which pages a request holds: those of a known prefix, those that its rows need, and no more.

Knows requests, pages and the prefix cache with its tier in host memory, never who runs next.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set

from lostwax.ir.contract.step_plan import Move
from lostwax.server.engine.host_tier import HostTier
from lostwax.server.engine.pages import PageAllocator
from lostwax.server.engine.prefix_cache import NO_PAGE, Prefix, PrefixCache
from lostwax.server.engine.request import Chunk, Req
from lostwax.server.engine.runtime import Limits

Coming = tuple[bytes, bool]
"""A page that will enter the cache: its key, and whether the MTP layer's rows are written, too."""


class RequestPages:
    """Gives requests pages as they grow, and takes them back.

    `max_drafts` tokens are drafted at most for a request between two decode steps: the MTP layer
    writes rows for them. Without `prefix_cache` no page is kept and none is shared, nor is any
    saved to the host.
    """

    def __init__(self, limits: Limits, max_drafts: int, *, prefix_cache: bool) -> None:
        self._size = limits.page_tokens
        self._max_drafts = max_drafts
        self.allocator = PageAllocator(limits.num_pages)
        num_slots = limits.num_host_pages if prefix_cache else 0
        self.tier = HostTier(num_slots) if num_slots else None
        """What host memory takes in."""
        self._cache: PrefixCache | None = None
        if prefix_cache:
            self._cache = PrefixCache(self.allocator, self._size, self.tier)

    @property
    def has_cache(self) -> bool:
        """Whether pages are kept for others to find."""
        return self._cache is not None

    @property
    def num_entered(self) -> int:
        """Pages that ever entered the prefix cache: while it stands still, none is newly found."""
        return self._cache.num_entered if self._cache else 0

    def admit(self, req: Req, num_pages: int) -> bool:
        """Give a request the pages of all its known tokens, those of a known prefix first; False,
        and none, where that would take more than `num_pages` of the free ones. What is found of who
        waits is remembered, and the next look costs what has changed of it."""
        prefix = self._find(req)
        count = self._pages_for(req, len(req.tokens)) - len(prefix.found)
        if count + prefix.num_idle > num_pages:
            return False
        if self._cache:
            self._cache.count_idle(prefix)
        if count + prefix.num_idle > num_pages:
            return False
        pages = prefix.pages
        self.allocator.share(pages, req.name)
        req.pages = pages + self._take(req, count)
        req.page_keys = prefix.keys
        self._begin_behind_found(req)
        return True

    def num_sharable(self, req: Req) -> int:
        """Rows of its prompt that another of the same prompt can find once they have run."""
        if self._cache is None or req.submit.score_prompt:
            return 0
        return (req.num_prompt - 1) // self._size * self._size

    def lacking(self, chunks: Sequence[Chunk]) -> list[Chunk]:
        """Those whose requests lack pages."""
        size, behind = self._size, self._max_drafts
        # In most steps no request comes near the end of its pages.
        near = [c for c in chunks if c.start + c.count + behind > len(c.req.pages) * size]
        return [chunk for chunk in near if self.lacks(chunk.req, chunk.end)]

    def lacks(self, req: Req, end: int) -> int:
        """Pages that it must be given before rows up to position `end`, and drafts behind them,
        are written."""
        return max(0, self._pages_for(req, end) - len(req.pages))

    def grow(self, req: Req, count: int) -> None:
        """Give a request `count` pages; so many must be free."""
        req.pages += self._take(req, count)

    def may_grow(self, req: Req) -> bool:
        """Whether it may come to need more pages than it holds."""
        return len(req.pages) < req.pages_of(req.max_rows, self._size)

    def find_more(self, req: Req) -> bool:
        """Let a request that runs, and has begun nothing, share pages that have entered since it
        was looked for; it gives back as many of its own, which nobody has written for it. Says
        whether there were any."""
        if not self.has_grown(req):
            return False
        prefix, num_shared = self._find(req), len(req.page_keys)
        found = prefix.found[num_shared:]
        if not found:
            return False
        more, own = [kept.page for kept in found], slice(num_shared, len(prefix.found))
        self.allocator.share(more, req.name)
        self.allocator.release(req.pages[own], req.name)
        req.pages[own] = more
        req.page_keys += [kept.key for kept in found]
        req.host_keys = req.host_keys[len(more) :]
        self._begin_behind_found(req)
        return True

    def bring_back(self, req: Req, *, is_bounded: bool) -> bool:
        """Bring back from the host what goes on where a request begins that runs and has begun
        nothing; into its own pages, which enter like others once its first step is committed.

        False where more lies there than the next step may bring (`is_bounded`): then it waits.
        """
        if self._cache is None or self.tier is None:
            return True
        first, keys = len(req.page_keys) + len(req.host_keys), list[bytes]()
        most = min(req.max_found, len(req.tokens) - 1) // self._size - first
        key = [NO_PAGE, *req.page_keys, *req.host_keys][-1]
        room = self.tier.room if is_bounded else most
        may_begin = True
        for index in range(first, first + most):
            key = self._cache.key(key, req.tokens, index)
            if not self.tier.has(key, with_drafts=self._drafts_for(req)):
                break
            if len(keys) == room:
                may_begin = False
                break
            keys.append(key)
        self.tier.restore(keys, req.pages[first : first + len(keys)])
        req.host_keys += keys
        self._begin_behind_found(req)
        return may_begin

    def take_moves(self, chunks: Sequence[Chunk]) -> tuple[Move, ...]:
        """What the step of these chunks copies between device and host before it writes a page."""
        if self.tier is None:
            return ()
        return self.tier.take_moves(self._written(chunks) if self.tier.has_unsaved else ())

    def _written(self, chunks: Sequence[Chunk]) -> Iterator[int]:
        """Pages that these chunks and their drafts may be the first to write."""
        for chunk in chunks:
            pages = chunk.req.pages
            yield from pages[chunk.start // self._size : self._pages_for(chunk.req, chunk.end)]

    def is_on_its_way(self, req: Req, written: Set[Coming]) -> bool:
        """Whether the page behind those that a request has found is one of those that are being
        written: it can be shared once that step is committed."""
        key = self._key_to_come(req, min(req.max_found, len(req.tokens) - 1))
        return key is not None and (key, self._drafts_for(req)) in written

    def writes(self, req: Req) -> Set[Coming]:
        """What steps of a request, in flight or about to be, let enter the cache first."""
        key = self._key_to_come(req, len(req.tokens) - 1)
        if key is None:
            return set()
        return {(key, False), (key, self._drafts_for(req))}  # who drafts serves who does not, too

    def has_grown(self, req: Req) -> bool:
        """Whether a page has entered the cache since a request was looked for there."""
        return self.num_entered > req.num_entered

    def take_back(self, req: Req) -> None:
        """Take all pages from a request: at once, steps in flight or not, since who gets them
        writes them in a later step."""
        for index in reversed(range(len(req.pages))):
            if self._cache and index < len(req.page_keys):
                self._cache.refresh(req.page_keys[index])  # another's page of the same content
            self.allocator.release([req.pages[index]], req.name)
        req.pages, req.page_keys, req.host_keys, req.prefix = [], [], [], None

    def drop_kept(self, req: Req) -> None:
        """Let nobody find what a request holds, whoever wrote it."""
        if self._cache is None:
            return
        for page in req.pages[: len(req.page_keys)]:
            self._cache.drop(page)
        if self.tier is not None:
            for key in [*req.page_keys, *req.host_keys]:
                self.tier.forget(key)
        req.page_keys, req.host_keys = [], []

    def enter(self, chunk: Chunk) -> None:
        """Let the pages that a committed chunk has filled enter the prefix cache.

        Their rows hold, and so does the token behind them: no later step writes them.
        """
        req, size = chunk.req, self._size
        if req.num_cached < (len(req.page_keys) + 1) * size:  # as it is in most steps
            return
        if self._cache is None or not req.pages:  # it has ended or was preempted
            return
        num_full = min(req.num_cached, len(req.tokens) - 1) // size
        for index in range(len(req.page_keys), num_full):
            before = req.page_keys[-1] if req.page_keys else NO_PAGE
            key = self._cache.key(before, req.tokens, index)
            has_drafts = (index + 1) * size <= req.num_drafted
            self._cache.enter(key, req.pages[index], before, has_drafts=has_drafts)
            req.page_keys.append(key)
        req.host_keys, req.prefix = [], None  # it is looked for no more

    def check_integrity(self, req: Req) -> None:
        """It holds what its rows need, and shares no page that a step of it will write."""
        name, size, num_full = req.name, self._size, len(req.page_keys)
        assert self.allocator.held_by(name) == set(req.pages), f"{name}: pages differ"
        assert req.pages_of(req.num_planned, size) <= len(req.pages), f"{name}: too few pages"
        assert len(req.pages) <= req.pages_of(req.max_rows, size), f"{name}: too many pages"
        assert req.num_told <= len(req.pages), f"{name}: the device has heard of other pages"
        assert num_full * size <= min(req.num_cached, len(req.tokens) - 1), f"{name}: too early"
        num_found = (num_full + len(req.host_keys)) * size
        assert not req.host_keys or num_found == req.num_found, f"{name}: begins elsewhere"
        assert req.num_drafted <= req.num_cached, f"{name}: drafts of no rows"
        before = NO_PAGE
        for index, key in enumerate(req.page_keys):
            assert self._cache, "a page has a key, and there is no cache"
            assert key == self._cache.key(before, req.tokens, index), f"{name}: another key"
            before = key
        for page in req.pages[req.num_cached // size :]:
            assert not self.allocator.is_shared(page), f"{name} will write a shared page"

    def check_waiting(self, req: Req) -> None:
        """It holds nothing, and takes no more pages for idle than are."""
        assert not req.pages, f"{req.name} waits and holds pages"
        if self._cache and req.prefix is not None:
            self._cache.check_found(req.prefix)

    def check_cache(self) -> None:
        """Every page is where it is counted."""
        self.allocator.check_integrity()
        if self._cache:
            self._cache.check_integrity()
        if self.tier:
            self.tier.check_integrity()

    def _pages_for(self, req: Req, end: int) -> int:
        # Drafts behind the first are made by rows of the MTP layer behind the step's own.
        return req.pages_of(end + max(self._max_drafts - 1, 0), self._size)

    def _take(self, req: Req, count: int) -> list[int]:
        if self._cache:
            self._cache.make_room(count)
        return self.allocator.allocate(count, req.name)

    def _begin_behind_found(self, req: Req) -> None:
        """Count the rows of found pages, and no longer those that were found before."""
        num_found = (len(req.page_keys) + len(req.host_keys)) * self._size
        req.num_cached += num_found - req.num_found
        req.num_found = num_found
        req.num_drafted = num_found if self._drafts_for(req) else 0

    def _key_to_come(self, req: Req, num_rows: int) -> bytes | None:
        """The key of the page behind those that have one, where it is one of the first `num_rows`
        rows and there is a cache."""
        index = len(req.page_keys)
        if self._cache is None or (index + 1) * self._size > num_rows:
            return None
        if req.key_to_come is None or req.key_to_come[0] != index:
            before = req.page_keys[-1] if req.page_keys else NO_PAGE
            req.key_to_come = (index, self._cache.key(before, req.tokens, index))
        return req.key_to_come[1]

    def _find(self, req: Req) -> Prefix:
        """What the cache holds of a request's tokens now."""
        if self._cache is None:
            return Prefix()
        req.num_entered = self._cache.num_entered
        # A row is left to run in any case: what stands behind the last token, nobody knows.
        most = req.max_found // self._size
        drafts = self._drafts_for(req)
        req.prefix = self._cache.find(req.tokens, most, with_drafts=drafts, known=req.prefix)
        return req.prefix

    def _drafts_for(self, req: Req) -> bool:
        return self._max_drafts > 0 and req.wants_drafts
