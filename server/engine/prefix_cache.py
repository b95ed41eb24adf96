"""Finds the pages that hold a prefix. Knows tokens and pages, never requests or steps.

A page is found by its key: a digest of the key of the page before it, of its tokens, and of the
token behind them. So the key stands for everything that its rows depend on: a row of the model for
the tokens up to its own, row i of the MTP layer for token i + 1, too. Pages of equal content have
one key, and the first of them is the one that is found.

Who needs room drops the page that has been idle for longest; where there is a host tier, it takes
in what the page holds. Requests give back their last page first, so that a page goes before the one
that it stands behind.
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


@dataclass(frozen=True, slots=True)
class Prefix:
    """Pages that hold the beginning of some tokens, in order, and their keys."""

    pages: list[int] = field(default_factory=list[int])
    keys: list[bytes] = field(default_factory=list[bytes])


@dataclass(frozen=True, slots=True)
class _Entry:
    page: int
    has_drafts: bool
    """Whether its rows of the MTP layer were written, too."""


class PrefixCache:
    """The kept pages of `pages` by their keys; `tier` takes in what gives way."""

    def __init__(
        self, pages: PageAllocator, page_tokens: int, tier: HostTier | None = None
    ) -> None:
        self._pages = pages
        self._tier = tier
        self._page_tokens = page_tokens
        self._entries: dict[bytes, _Entry] = {}
        self._key_of: dict[int, bytes] = {}
        self.num_entered = 0
        """Pages that ever entered: while it stands still, no prefix that is found grows."""

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
        known: Sequence[bytes] = (),
    ) -> Prefix:
        """The longest prefix of `tokens` that lies in kept pages, `max_pages` at most, and with a
        token behind it. `with_drafts` asks for pages that the MTP layer has written, too; `known`
        are the keys of the first pages, as an earlier search has given them."""
        found, key = Prefix(), NO_PAGE
        for index in range(min(max_pages, (len(tokens) - 1) // self._page_tokens)):
            key = known[index] if index < len(known) else self.key(key, tokens, index)
            entry = self._entries.get(key)
            if entry is None or (with_drafts and not entry.has_drafts):
                break
            found.pages.append(entry.page)
            found.keys.append(key)
        return found

    def enter(self, key: bytes, page: int, *, has_drafts: bool) -> None:
        """Keep a page that somebody holds and nobody will write again.

        Where one of the same content is kept it stays, as one that was just used; but a page with
        the MTP layer's rows takes the place of one without.
        """
        entry = self._entries.get(key)
        if entry is not None:
            if entry.has_drafts or not has_drafts:
                self._pages.refresh(entry.page)
                return
            self.drop(entry.page)
        self._pages.keep(page)
        self.num_entered += 1
        self._entries[key] = _Entry(page, has_drafts)
        self._key_of[page] = key

    def refresh(self, key: bytes) -> None:
        """Let the page of a key, if there is one and it is idle, be the last to go."""
        entry = self._entries.get(key)
        if entry is not None:
            self._pages.refresh(entry.page)

    def drop(self, page: int) -> None:
        """Find a page no more, if it is kept."""
        key = self._key_of.pop(page, None)
        if key is not None:
            del self._entries[key]
            self._pages.drop(page)

    def make_room(self, count: int) -> None:
        """Drop idle pages until `count` pages are blank; so many must be free."""
        while self._pages.num_blank < count:
            page = self._pages.longest_idle()
            if self._tier is not None:
                key = self._key_of[page]
                self._tier.save(key, page, has_drafts=self._entries[key].has_drafts)
            self.drop(page)

    def check_integrity(self) -> None:
        """Exactly the kept pages are found, each by one key."""
        pages = {entry.page: key for key, entry in self._entries.items()}
        assert pages == self._key_of, "a page is found by another key than its own"
        assert self._pages.kept == self._key_of.keys(), "a page is kept and not found"
