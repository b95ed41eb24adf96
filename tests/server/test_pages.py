"""The page allocator hands out every page once and never the trash page."""

from __future__ import annotations

import pytest

from lostwax.ir.contract.step import TRASH_PAGE
from lostwax.server.engine.pages import OutOfPages, PageAllocator


def test_all_pages_but_the_trash_page_are_handed_out_once() -> None:
    pages = PageAllocator(6)
    held = pages.allocate(2, "a") + pages.allocate(3, "b")
    assert sorted(held) == [1, 2, 3, 4, 5]
    assert TRASH_PAGE not in held
    pages.check_integrity()


def test_asking_for_more_than_is_free_changes_nothing() -> None:
    pages = PageAllocator(4)
    pages.allocate(2, "a")
    with pytest.raises(OutOfPages, match="b wants 2 pages, 1 are blank"):
        pages.allocate(2, "b")
    assert pages.num_free == 1
    pages.check_integrity()


def test_released_pages_are_handed_out_again_lowest_first() -> None:
    pages = PageAllocator(5)
    held = pages.allocate(4, "a")
    pages.release(held[2:], "a")
    pages.release(held[:1], "a")
    assert pages.allocate(3, "b") == [1, 3, 4]


def test_a_page_is_given_back_only_by_its_owner_and_only_once() -> None:
    pages = PageAllocator(4)
    held = pages.allocate(1, "a")
    with pytest.raises(ValueError, match="does not hold"):
        pages.release(held, "b")
    pages.release(held, "a")
    with pytest.raises(ValueError, match="does not hold"):
        pages.release(held, "a")


def test_a_cache_of_only_the_trash_page_is_refused() -> None:
    with pytest.raises(ValueError, match="give at least 2"):
        PageAllocator(1)
