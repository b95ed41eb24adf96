"""Who waits, begins and gives way where requests share pages: room and order."""

from __future__ import annotations

from unittest.mock import patch

import pytest
from fake_runtime import generate
from sharing_engine import SharingEngine, text

from lostwax.server.engine.prefix_cache import PrefixCache


def test_requests_run_together_that_only_fit_because_they_share() -> None:
    engine = SharingEngine(num_pages=1 + 6)
    engine.ask(text(17), 1)
    for name in ("a", "b"):
        engine.add(name, text(17), 4)  # five pages each, four of them shared
    engine.step()
    assert [req.name for req in engine.core.scheduler.running] == ["a", "b"]
    engine.finish()
    assert engine.tokens["a"] == engine.tokens["b"] == generate(text(17), 4)


@pytest.mark.parametrize("drafts", [0, 3])
def test_who_waits_for_room_runs_once_pages_that_it_shares_have_entered(drafts: int) -> None:
    """No page comes back meanwhile: five are free all the time, and it needs two of its own."""
    engine = SharingEngine(num_pages=1 + 16, max_drafts=drafts)
    engine.add("running", text(24), 21)  # eleven pages
    engine.add("same", text(24), 4)  # seven pages, five of them shared
    engine.add("short", [5], 1)
    order: list[str] = []
    while engine.core.has_work:
        engine.step()
        order += [name for name, end in engine.ends.items() if end and name not in order]
    assert order[-1] == "running", "the others waited for its end"
    for name, prompt, count in (("running", 24, 21), ("same", 24, 4)):
        assert engine.tokens[name] == generate(text(prompt), count)


@pytest.mark.parametrize("drafts", [0, 3])
def test_equal_prompts_that_come_at_once_run_once(drafts: int) -> None:
    engine = SharingEngine(max_reqs=8, num_pages=1 + 8 * 11, max_drafts=drafts)
    names = "abcdefgh"
    for name in names:
        engine.add(name, text(40), 4)
    with engine.rows() as rows:
        engine.finish()
    # The first runs whole. The others wait for its last whole page.
    assert engine.found == {"a": 0} | dict.fromkeys(names[1:], 36)
    assert sum(rows) == 40 + 7 * 4
    for name in names:
        assert engine.tokens[name] == generate(text(40), 4)


def test_who_begins_later_gives_back_the_pages_that_it_shares_instead() -> None:
    engine = SharingEngine(num_pages=1 + 18)
    engine.add("first", text(32), 5)  # eight pages, nine at its end
    engine.add("second", text(32), 5)  # eight, until it shares seven
    engine.add("third", [5] * 20, 4)  # five, and one for each of the others to grow
    pages = engine.core.scheduler.pages
    engine.step()
    engine.step()
    assert (pages.num_free, len(pages.held_by("second"))) == (2 + 4, 8), "four are shared so far"
    while len(engine.core.scheduler.running) == 2:
        engine.step()
    assert not engine.ends.get("second")
    assert not engine.ends.get("first")
    assert len(pages.held_by("first") | pages.held_by("second")) == 9 + 2
    engine.finish()
    assert engine.found == {"first": 0, "second": 28, "third": 0}
    assert engine.tokens["second"] == generate(text(32), 5)


def test_who_waits_runs_once_another_holds_the_idle_pages_that_it_shares() -> None:
    """As many pages are free as before, and none has entered; but fewer of them are wanted."""
    engine = SharingEngine(num_pages=1 + 19)
    engine.add("filling", text(24), 1)  # six pages, five of them found by those below
    engine.add("between", [5] * 24, 20)  # six, and rows of the next two steps
    engine.add("sharing", text(22), 5)  # six
    engine.add("waiting", text(22), 10)  # six, and one for each of the others to grow
    scheduler = engine.core.scheduler
    while not engine.found.keys() >= {"filling", "between"}:
        engine.step()
    assert scheduler.pages.num_free == 7
    while "sharing" not in engine.found:
        assert [req.name for req in scheduler.waiting] == ["waiting"]
        engine.step()
    assert scheduler.pages.num_free == 6, "one more has gone to who decodes"
    engine.step()
    assert not scheduler.waiting
    engine.finish()
    assert engine.found == {"filling": 0, "between": 0, "sharing": 20, "waiting": 20}


def test_who_waits_does_not_count_on_pages_that_have_given_way() -> None:
    engine = SharingEngine(num_pages=1 + 12)
    engine.ask(text(17), 1)
    engine.add("running", [5] * 20, 24)  # five pages, and eleven at its end
    engine.add("waiting", [*text(17), *[6] * 16], 4)  # nine, of which four are found
    engine.step()
    assert [req.name for req in engine.core.scheduler.waiting] == ["waiting"]
    engine.finish()
    assert engine.found["waiting"] == 4, "three went to who ran"
    assert engine.tokens["waiting"] == generate([*text(17), *[6] * 16], 4)


def test_who_waits_for_all_pages_begins_though_found_ones_have_given_way() -> None:
    """With one page counted as idle that is none, it would never have room."""
    engine = SharingEngine(num_pages=1 + 12)
    engine.ask(text(17), 1)
    engine.add("running", [5] * 20, 24)
    engine.add("waiting", [*text(17), *[6] * 24], 4)  # eleven, and four found ones are lost
    for _ in range(40):
        engine.step()
    assert not engine.core.has_work, "who waits for ever has no step"
    assert engine.found["waiting"] == 4
    assert engine.tokens["waiting"] == generate([*text(17), *[6] * 24], 4)


def test_who_waits_begins_once_another_took_the_place_of_idle_pages_that_it_shares() -> None:
    """Theirs lack the rows of the MTP layer, which it does not need, but the other does."""
    engine = SharingEngine(num_pages=1 + 10, max_drafts=3)
    engine.ask(text(17), 1)
    engine.add("drafting", text(17), 12)  # five pages, and seven at its end
    engine.add("waiting", text(17), 2)  # five, of which four are found, and one for the other
    running = engine.core.scheduler.running
    engine.step()
    assert [req.name for req in running] == ["drafting"]
    while not engine.ends.get("waiting"):
        engine.step()
    assert not engine.ends["drafting"]
    engine.finish()
    assert engine.found["waiting"] == 16
    for name, count in (("drafting", 12), ("waiting", 2)):
        assert engine.tokens[name] == generate(text(17), count)


@pytest.mark.parametrize("num_shared", [2, 4])
def test_who_waits_finds_pages_that_were_lost_and_come_again(num_shared: int) -> None:
    """With another's rows in other pages, and fewer or as many of them."""
    engine = SharingEngine(num_pages=1 + 12)
    engine.ask(text(17), 1)
    engine.add("running", [5] * 37, 8)  # ten pages, eleven at its end: two of the kept ones go
    engine.add("waiting", [*text(17), *[6] * 19], 4, priority=1)  # ten, of which some are found
    while not engine.ends.get("running"):
        engine.step()
    engine.add("again", text(4 * num_shared + 1), 2)
    engine.finish()
    assert engine.found["waiting"] >= 4 * num_shared
    assert engine.tokens["waiting"] == generate([*text(17), *[6] * 19], 4)


def test_who_has_begun_is_not_looked_for_again() -> None:
    engine = SharingEngine(max_tokens=1)  # the second has no rows until the first is through
    engine.add("first", text(30), 2)
    engine.add("second", [9, *text(30)], 2)
    with patch.object(PrefixCache, "find", autospec=True, side_effect=PrefixCache.find) as find:
        engine.finish()
    assert find.call_count == 3, "each when it was admitted, the second once more"


def test_kept_pages_give_way_to_who_needs_room() -> None:
    engine = SharingEngine(num_pages=1 + 8)
    engine.ask(text(17), 1)
    assert engine.core.scheduler.pages.num_blank == 4
    assert engine.ask([5] * 25, 4) == 0  # seven pages
    # The last pages of the first prompt went, the first one stayed.
    assert engine.ask(text(17), 1) == 4


def test_pages_of_equal_prompts_that_ran_together_go_last_page_first() -> None:
    """Only one of two equal pages is found; what stands behind the other stays findable."""
    engine = SharingEngine(num_pages=1 + 14)
    engine.add("first", text(9), 1)
    engine.add("second", text(9), 8)
    engine.finish()
    answer = generate(text(9), 8)
    engine.ask([5] * 41, 4)  # eleven pages of fourteen
    assert engine.ask([*text(9), *answer, 1], 1) == 12, "the first three pages stayed"
