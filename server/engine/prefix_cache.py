"""Finds the pages that hold a prefix. Knows tokens and pages, never requests or steps.

A page is found by its key: a digest of the key of the page before it, of its tokens, and of the
token behind them. So the key stands for everything that its rows depend on: a row of the model for
the tokens up to its own, row i of the MTP layer for token i + 1, too. Pages of equal content have
one key, and the first of them is the one that is found.

Who needs room drops the page that has been idle for longest; where there is a host tier, it takes
in what the page holds. Requests give back their last page first, so that a page goes before the one
that it stands behind; where it does not, those behind it go with it. So a page that is kept has all
before it kept, and a search goes on where the one before has ended.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

from lostwax.server.engine.host_tier import HostTier
from lostwax.server.engine.pages import PageAllocator

NO_PAGE = b""
"""The key that stands before the first page's."""


@dataclass(slots=True, eq=False)
class _Kept:
    """A page that is found by its key, and those that stand right behind it."""

    key: bytes
    page: int
    has_drafts: bool
    """Whether its rows of the MTP layer were written, too; then those of all before it were."""
    before: _Kept | None
    behind: set[_Kept] = field(default_factory=set["_Kept"])
    is_kept: bool = True


@dataclass(slots=True)
class Prefix:
    """Kept pages that hold the beginning of some tokens, as a search has found them; the next goes
    on from there."""

    found: list[_Kept] = field(default_factory=list[_Kept])
    key_to_come: bytes | None = None
    """Of the page behind them, once it was looked for."""
    num_idle: int = 0
    """Of these, pages that nobody holds: as many at least."""
    num_taken: int = 0
    """Idle pages of the cache that somebody had ever come to hold by then."""

    @property
    def pages(self) -> list[int]:
        """Their ids, in order."""
        return [kept.page for kept in self.found]

    @property
    def keys(self) -> list[bytes]:
        """Their keys."""
        return [kept.key for kept in self.found]

    def lose_last(self) -> None:
        """Forget the last page, which is kept no more."""
        self.key_to_come = self.found.pop().key
        self.num_idle = max(self.num_idle - 1, 0)


class PrefixCache:
    """The kept pages of `pages` by their keys; `tier` takes in what gives way."""

    def __init__(
        self, pages: PageAllocator, page_tokens: int, tier: HostTier | None = None
    ) -> None:
        self._pages = pages
        self._tier = tier
        self._page_tokens = page_tokens
        self._kept: dict[bytes, _Kept] = {}
        self._at: dict[int, _Kept] = {}
        """The same by their pages."""
        self.num_entered = 0
        """Pages that ever entered: while it stands still, no prefix that is found grows."""
        self._num_replaced = 0

    def key(self, before: bytes, tokens: Sequence[int], index: int) -> bytes:
        """The key of page number `index` of `tokens`, which go on behind it; `before` is the key of
        the page before."""
        first = index * self._page_tokens
        own = array("i", tokens[first : first + self._page_tokens + 1])
        assert len(own) == self._page_tokens + 1, "what stands behind the page is not known"
        return hashlib.sha256(before + own.tobytes()).digest()

    def find(
        self,
        tokens: Sequence[int],
        max_pages: int,
        *,
        with_drafts: bool,
        known: Prefix | None = None,
    ) -> Prefix:
        """The longest prefix of `tokens` that lies in kept pages, `max_pages` at most, and with a
        token behind it. `with_drafts` asks for pages that the MTP layer has written, too; `known`
        is what an earlier search of the same has found: it is brought up to date, which costs what
        was kept or lost since."""
        prefix = known or Prefix()
        num_taken = self._num_taken
        prefix.num_idle = max(prefix.num_idle - (num_taken - prefix.num_taken), 0)
        prefix.num_taken = num_taken
        while prefix.found and not prefix.found[-1].is_kept:
            prefix.lose_last()
        most = min(max_pages, (len(tokens) - 1) // self._page_tokens)
        while len(prefix.found) < most:
            key = prefix.key_to_come
            if key is None:
                before = prefix.found[-1].key if prefix.found else NO_PAGE
                prefix.key_to_come = key = self.key(before, tokens, len(prefix.found))
            kept = self._kept.get(key)
            if kept is None or (with_drafts and not kept.has_drafts):
                break
            prefix.found.append(kept)
            prefix.key_to_come = None
            prefix.num_idle += self._pages.is_idle(kept.page)
        return prefix

    def count_idle(self, prefix: Prefix) -> None:
        """Say exactly how many pages of a prefix that was just found nobody holds."""
        prefix.num_idle = sum(map(self._pages.is_idle, prefix.pages))

    def enter(self, key: bytes, page: int, before: bytes, *, has_drafts: bool) -> None:
        """Keep a page that somebody holds and nobody will write again, behind that of the key
        `before`; where that one is kept no more, nobody would find it, and it is not kept.

        Where one of the same content is kept it stays, as one that was just used; but a page with
        the MTP layer's rows takes the place of one without.
        """
        parent = self._kept.get(before)
        if parent is None and before != NO_PAGE:
            return
        has_drafts = has_drafts and (parent is None or parent.has_drafts)
        kept = self._kept.get(key)
        if kept is None:
            kept = self._kept[key] = _Kept(key, page, has_drafts, parent)
            if parent is not None:
                parent.behind.add(kept)
        elif kept.has_drafts or not has_drafts:
            self._pages.refresh(kept.page)
            return
        else:
            del self._at[kept.page]
            self._pages.drop(kept.page)
            kept.page, kept.has_drafts = page, True
            self._num_replaced += 1
        self._pages.keep(page)
        self._at[page] = kept
        self.num_entered += 1

    def refresh(self, key: bytes) -> None:
        """Let the page of a key, if there is one and it is idle, be the last to go."""
        kept = self._kept.get(key)
        if kept is not None:
            self._pages.refresh(kept.page)

    def drop(self, page: int) -> None:
        """Find a page no more, if it is kept, nor those that stand behind it."""
        kept = self._at.get(page)
        if kept is not None:
            for each in _with_behind(kept):
                self._drop(each)

    def make_room(self, count: int) -> None:
        """Drop idle pages until `count` pages are blank; so many must be free."""
        while self._pages.num_blank < count:
            for kept in _with_behind(self._at[self._pages.longest_idle()]):
                if self._tier is not None and self._pages.is_idle(kept.page):
                    self._tier.save(kept.key, kept.page, has_drafts=kept.has_drafts)
                self._drop(kept)

    def check_integrity(self) -> None:
        """Exactly the kept pages are found, each by one key, and all before each are kept."""
        pages = {kept.page: kept for kept in self._kept.values()}
        assert pages == self._at, "a page is found by another key than its own"
        assert self._pages.kept == self._at.keys(), "a page is kept and not found"
        for kept in self._kept.values():
            assert kept.is_kept, "a page is found that was lost"
            parent = kept.before
            assert parent is None or self._kept.get(parent.key) is parent, "nobody finds a page"
            assert parent is None or parent.has_drafts or not kept.has_drafts, "rows are missing"

    def check_found(self, prefix: Prefix) -> None:
        """No more pages of a prefix count as idle than are, once it is brought up to date."""
        kept = [each.page for each in prefix.found if each.is_kept]
        num_gone = len(prefix.found) - len(kept) + self._num_taken - prefix.num_taken
        num_idle = sum(map(self._pages.is_idle, kept))
        assert prefix.num_idle - num_gone <= num_idle, "pages that somebody holds count as idle"

    @property
    def _num_taken(self) -> int:
        """How many times a page of a key that nobody held has come to be held."""
        return self._pages.num_taken + self._num_replaced

    def _drop(self, kept: _Kept) -> None:
        kept.is_kept = False
        if kept.before is not None:
            kept.before.behind.discard(kept)
        del self._kept[kept.key], self._at[kept.page]
        self._pages.drop(kept.page)


def _with_behind(kept: _Kept) -> list[_Kept]:
    """A page and all that stand behind it, each behind those behind it."""
    found = [kept]
    for each in found:
        found += each.behind
    return found[::-1]
