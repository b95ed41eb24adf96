"""Who runs where pages are scarce: requests grow, pass, give way and come back."""

from __future__ import annotations

import pytest
from engine_bounds import QUEUE_CHECKS, QueueCheck
from fake_runtime import generate
from sharing_engine import SharingEngine, text

from lostwax.server.engine.messages import Cancel
from lostwax.server.engine.options import EngineOptions
from lostwax.server.engine.waiting import LOOK_AHEAD, MAX_PASSED, WaitingQueue


def _running(engine: SharingEngine) -> list[str]:
    return [req.name for req in engine.core.scheduler.running]


def test_a_request_holds_the_pages_of_its_tokens_and_not_of_those_that_it_may_get() -> None:
    engine = SharingEngine(num_pages=1 + 12)
    engine.add("long", [5] * 6, 40)  # eleven pages at its end
    engine.add("next", [6] * 6, 4)
    engine.step()
    assert _running(engine) == ["long", "next"]
    assert len(engine.core.scheduler.pages.held_by("long")) == 2
    engine.finish()
    assert engine.tokens["long"] == generate([5] * 6, 40)


@pytest.mark.parametrize("drafts", [0, 3])
def test_requests_that_do_not_fit_together_all_end_with_their_own_answers(drafts: int) -> None:
    engine = SharingEngine(EngineOptions(prefix_cache=False), num_pages=1 + 14, max_drafts=drafts)
    names = "abcd"
    for i, name in enumerate(names):
        engine.add(name, [5 + i] * 6, 40)  # eleven pages each at their ends
    engine.finish()
    assert engine.core.scheduler.num_preempted > 0
    for i, name in enumerate(names):
        assert engine.tokens[name] == generate([5 + i] * 6, 40)
        assert engine.ends[name] == "length"


def test_the_last_free_page_is_the_firsts_and_who_lacks_one_waits_with_what_it_has() -> None:
    engine = SharingEngine(EngineOptions(prefix_cache=False), num_pages=1 + 3)
    for name, first in (("first", 5), ("second", 6)):
        engine.add(name, [first] * 4, 8)  # a page each, and from the second token on two
    engine.step()
    engine.step()
    assert {name: len(tokens) for name, tokens in engine.tokens.items()} == {
        "first": 2,
        "second": 1,
    }
    assert _running(engine) == ["first", "second"]
    assert engine.core.scheduler.num_preempted == 0, "nobody had to give its page"


def test_the_last_to_come_gives_way_and_the_first_never_does() -> None:
    engine = SharingEngine(num_pages=1 + 8)
    for name, first in (("first", 5), ("second", 6), ("third", 7)):
        engine.add(name, [first] * 4, 28)  # eight pages at their ends
    order, seen = list[str](), set[str]()
    while engine.core.has_work:
        engine.step()
        now = set(_running(engine))
        order += [name for name in sorted(seen - now) if not engine.ends[name]]
        seen = now
    assert "first" not in order
    assert order[:2] == ["third", "second"]


def test_who_has_a_lower_priority_number_goes_first_and_gives_way_last() -> None:
    engine = SharingEngine(num_pages=1 + 8, max_reqs=2)
    engine.add("plain", [5] * 4, 28, priority=1)
    engine.step()
    engine.add("later", [6] * 4, 4, priority=1)
    engine.add("urgent", [7] * 4, 28, priority=0)
    engine.step()
    assert _running(engine) == ["plain", "urgent"]
    while not engine.ends.get("urgent"):
        engine.step()
    assert not engine.ends["plain"], "it gave its pages to who ranks before it"
    engine.finish()
    assert engine.tokens["plain"] == generate([5] * 4, 28)


def test_a_small_request_passes_a_large_one_within_a_step_of_a_free_page() -> None:
    engine = SharingEngine(num_pages=1 + 16, max_context=64)
    engine.add("running", [5] * 30, 20)  # eight pages, and one to grow
    engine.add("large", [6] * 40, 4)  # ten pages
    engine.step()
    engine.add("small", [7] * 4, 2)
    engine.step()
    assert _running(engine) == ["running", "small"]
    engine.finish()
    assert engine.ends == dict.fromkeys(("running", "large", "small"), "length")


def test_a_large_request_is_not_passed_for_ever() -> None:
    engine = SharingEngine(num_pages=1 + 16, max_context=64, max_reqs=4)
    engine.add("large", [6] * 60, 1)  # fifteen pages
    first = engine.core.scheduler.find("large")
    assert first is not None
    engine.add("running", [5] * 8, 1, priority=-1)
    number, last = 0, ""
    while not engine.ends.get("large"):
        # There is always one that fits beside those that run.
        last = f"small{number}"
        engine.add(last, [7] * 8, 8)
        number += 1
        engine.step()
    assert first.num_passed == MAX_PASSED
    assert not engine.ends.get(last)


def test_cancelled_requests_leave_the_queue_as_if_they_had_never_come() -> None:
    queue_engine = SharingEngine(num_pages=1 + 8, max_reqs=1)
    queue_engine.add("running", [5] * 4, 20)
    queue_engine.step()
    for i in range(1000):
        queue_engine.add(f"r{i}", [6] * 4, 2)
        queue_engine.core.handle(Cancel(f"r{i}"))
    waiting = queue_engine.core.scheduler.waiting
    assert len(waiting) == 0
    assert waiting.first() is None
    assert _entries(waiting) <= LOOK_AHEAD + 1


@pytest.mark.parametrize("check", QUEUE_CHECKS, ids=lambda check: check.__name__)
def test_bounds_of_a_look_at_the_queue(check: QueueCheck) -> None:
    check(WaitingQueue)


def test_who_stands_behind_more_than_are_looked_at_does_not_pass() -> None:
    engine = SharingEngine(num_pages=1 + 16, max_context=64)
    engine.add("running", [5] * 8, 40)
    engine.step()
    for number in range(LOOK_AHEAD + 1):  # the first, and as many as are looked at behind it
        engine.add(f"large{number}", [6] * 60, 1)
    engine.add("small", [7] * 4, 9)
    engine.step()
    assert _running(engine) == ["running"]
    engine.core.handle(Cancel("large3"))
    engine.step()
    assert _running(engine) == ["running", "small"]


def _entries(queue: WaitingQueue) -> int:
    return len(getattr(queue, "_heap"))  # noqa: B009


def test_who_stood_behind_cancelled_requests_is_looked_at() -> None:
    engine = SharingEngine(EngineOptions(prefix_cache=False), num_pages=1 + 16, max_context=64)
    engine.add("running", [5] * 8, 40)
    engine.step()
    large = [f"large{i}" for i in range(LOOK_AHEAD + 1)]
    for name in large:
        engine.add(name, [6] * 58, 2)  # fifteen pages
    engine.add("small", [7] * 4, 1)
    engine.step()
    assert _running(engine) == ["running"]
    for name in large:
        engine.core.handle(Cancel(name))
    engine.step()
    assert "small" in engine.ends or "small" in _running(engine)


def test_no_more_than_max_running_requests_run() -> None:
    engine = SharingEngine(EngineOptions(max_running=2), num_pages=1 + 40, max_reqs=4)
    for name in "abcd":
        engine.add(name, text(5), 6)
    most = 0
    while engine.core.has_work:
        engine.step()
        most = max(most, len(_running(engine)))
    assert most == 2
    assert all(engine.tokens[name] == generate(text(5), 6) for name in "abcd")
