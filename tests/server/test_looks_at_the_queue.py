"""What a step costs while prompts wait and pages enter the cache: counted, not timed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import pytest
from engine_machine import cache_of
from sharing_engine import PAGE, SharingEngine, text

from lostwax.server.engine.messages import Output
from lostwax.server.engine.pages import PageAllocator
from lostwax.server.engine.prefix_cache import Prefix, PrefixCache

STEPS = 40
COUNTED = ((PageAllocator, "is_idle"), (PageAllocator, "refresh"), (PrefixCache, "key"))
"""Beside what is looked up by key."""


class _Counted(dict[Any, Any]):
    """Counts what is looked up."""

    def __init__(self, items: dict[Any, Any], counts: Counter[str]) -> None:
        super().__init__(items)
        self._counts = counts

    def get(self, key: Any, default: Any = None) -> Any:
        self._counts["get"] += 1
        return super().get(key, default)


def _counting(counts: Counter[str], name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def counted(*args: Any, **given: Any) -> Any:
        counts[name] += 1
        return function(*args, **given)

    return counted


def _looks(num_waiting: int, num_found: int) -> Counter[str]:
    """What steps look at in which a running request fills pages, while so many prompts wait of
    which so many pages are found, and which lack room."""
    num_pages = num_found + 30
    engine = SharingEngine(num_pages=1 + num_pages, max_context=4 * num_pages, max_tokens=4096)
    prompt = text(num_found * PAGE + 1)
    engine.add("running", prompt, 4 * 25)
    for number in range(num_waiting):
        own = [number % 40] * (4 * num_pages - len(prompt) - 4)
        engine.add(f"waiting {number}", [*prompt, *own], 1)
    for _ in range(4):
        engine.step()
    counts = Counter[str]()
    cache = cache_of(engine.core)
    setattr(cache, "_kept", _Counted(getattr(cache, "_kept"), counts))  # noqa: B009, B010
    with ExitStack() as patches:
        for owner, name in COUNTED:
            counted = _counting(counts, name, getattr(owner, name))
            patches.enter_context(patch.object(owner, name, counted))
        for _ in range(STEPS):
            assert all(isinstance(event, Output) for event in engine.core.step())
    scheduler = engine.core.scheduler
    assert (len(scheduler.running), len(scheduler.waiting)) == (1, num_waiting)
    assert counts["key"] == STEPS // PAGE, "pages have entered"
    return counts


def test_a_step_costs_the_same_for_any_context_of_who_waits() -> None:
    assert _looks(8, 10) == _looks(8, 400)


def test_a_step_costs_the_same_for_any_queue() -> None:
    assert _looks(40, 10) == _looks(400, 10)


def test_a_search_that_begins_anew_is_noticed() -> None:
    find = PrefixCache.find

    def anew(cache: PrefixCache, *args: Any, **given: Any) -> Prefix:
        return find(cache, *args, **given | {"known": None})

    with patch.object(PrefixCache, "find", anew), pytest.raises(AssertionError):
        test_a_step_costs_the_same_for_any_context_of_who_waits()


def test_pages_that_are_counted_anew_are_noticed() -> None:
    find = PrefixCache.find

    def counted(cache: PrefixCache, *args: Any, **given: Any) -> Prefix:
        prefix = find(cache, *args, **given)
        cache.count_idle(prefix)
        return prefix

    with patch.object(PrefixCache, "find", counted), pytest.raises(AssertionError):
        test_a_step_costs_the_same_for_any_context_of_who_waits()
