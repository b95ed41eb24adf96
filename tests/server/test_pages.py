"""The page allocator hands out every page once, lets kept ones be shared, never the trash page."""

from __future__ import annotations

import time

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


def test_a_shared_page_is_free_once_its_last_owner_gives_it_back() -> None:
    pages = PageAllocator(4)
    (page,) = pages.allocate(1, "a")
    pages.keep(page)
    pages.share([page], "b")
    pages.release([page], "a")
    assert (pages.num_free, pages.held_by("b")) == (2, {page})
    assert pages.is_shared(page)
    pages.release([page], "b")
    assert (pages.num_free, pages.num_blank) == (3, 2)
    pages.check_integrity()


def test_only_kept_pages_are_shared_and_once_by_each() -> None:
    pages = PageAllocator(4)
    (page,) = pages.allocate(1, "a")
    with pytest.raises(ValueError, match="b cannot share page 1: it is not kept, or its own"):
        pages.share([page], "b")
    pages.keep(page)
    with pytest.raises(ValueError, match="a cannot share page 1"):
        pages.share([page], "a")
    with pytest.raises(ValueError, match="cannot be kept: nobody holds it, or it is kept already"):
        pages.keep(page)
    with pytest.raises(ValueError, match="cannot be kept"):
        pages.keep(2)


def test_an_idle_page_is_not_allocated_before_it_is_dropped() -> None:
    pages = PageAllocator(3)
    held = pages.allocate(2, "a")
    pages.keep(held[0])
    pages.release(held, "a")
    assert (pages.num_free, pages.num_blank) == (2, 1)
    with pytest.raises(OutOfPages, match="b wants 2 pages, 1 are blank"):
        pages.allocate(2, "b")
    pages.drop(pages.longest_idle())
    assert sorted(pages.allocate(2, "b")) == held
    pages.check_integrity()


def test_a_kept_page_that_is_dropped_in_use_is_blank_when_it_is_given_back() -> None:
    pages = PageAllocator(3)
    (page,) = pages.allocate(1, "a")
    pages.keep(page)
    pages.drop(page)
    assert not pages.is_shared(page)
    pages.release([page], "a")
    assert pages.num_blank == 2
    pages.check_integrity()


def test_the_page_that_was_idle_for_longest_goes_first_unless_it_is_refreshed() -> None:
    pages = PageAllocator(4)
    held = pages.allocate(3, "a")
    for page in held:
        pages.keep(page)
    pages.release(reversed(held), "a")
    assert pages.longest_idle() == held[2]
    pages.refresh(held[2])
    assert pages.longest_idle() == held[1]
    pages.share([held[1]], "b")
    pages.refresh(held[1])  # it is not idle
    assert pages.longest_idle() == held[0]
    pages.release([held[1]], "b")
    assert pages.longest_idle() == held[0]


def test_dropping_all_idle_pages_costs_little_more_than_giving_them_back() -> None:
    """Each is the first of the idle ones when it goes, and those before it cost nothing more."""
    pages = PageAllocator(40_001)
    held = pages.allocate(40_000, "a")
    for page in held:
        pages.keep(page)
    begin = time.process_time()
    pages.release(held, "a")
    released = time.process_time()
    for _ in held:
        pages.drop(pages.longest_idle())
    assert time.process_time() - released < 10 * (released - begin)
    assert pages.num_blank == 40_000
