"""What a request finds in the prefix cache, and what it must not find: answers stay its own."""

from __future__ import annotations

import math
from unittest.mock import patch

import pytest
from fake_runtime import generate
from sharing_engine import PAGE, SharingEngine, text
from step_oracle import StepBatch

from lostwax.ir.contract.step import StepResult
from lostwax.server.engine.messages import Cancel, Output
from lostwax.server.engine.options import EngineOptions
from lostwax.server.engine.pages import PageAllocator
from lostwax.server.engine.prefix_cache import NO_PAGE, PrefixCache


@pytest.mark.parametrize("drafts", [0, 3])
@pytest.mark.parametrize(("length", "found"), [(3, 0), (4, 0), (5, 4), (8, 4), (9, 8), (30, 28)])
def test_whole_pages_are_found_and_the_last_row_always_runs(
    length: int, found: int, drafts: int
) -> None:
    engine = SharingEngine(max_drafts=drafts)
    assert engine.ask(text(length)) == 0
    with engine.rows() as rows:
        assert engine.ask(text(length)) == found
    assert sum(rows) == length - found


@pytest.mark.parametrize("drafts", [0, 3])
def test_a_page_is_found_only_where_the_same_token_stands_behind_it(drafts: int) -> None:
    engine = SharingEngine(max_drafts=drafts)
    engine.ask([1, 2, 3, 4, 5])
    assert engine.ask([1, 2, 3, 4, 6]) == 0
    assert engine.ask([1, 2, 3, 4, 5, 9]) == 4
    assert engine.ask([1, 2, 3, 4, 6, 9]) == 4


def test_a_page_is_found_only_where_the_same_pages_stand_before_it() -> None:
    engine = SharingEngine()
    engine.ask([1] * 4 + [2] * 5)
    assert engine.ask([2] * 9) == 0
    assert engine.ask([2] * 4 + [1] * 5) == 0
    engine.ask([3] * 4 + [2])
    assert engine.ask([3] * 4 + [2] * 5) == 4, "the second page stood behind another first one"


@pytest.mark.parametrize("drafts", [0, 3])
def test_the_next_turn_finds_prompt_and_answer(drafts: int) -> None:
    engine = SharingEngine(max_drafts=drafts)
    prompt = text(6)
    engine.ask(prompt, 20)
    both = prompt + generate(prompt, 20)
    # The last token was never run; the MTP layer leaves out the rows before the end, too.
    assert engine.ask([*both, 1, 2, 3], 8) == (20 if drafts else 24)


@pytest.mark.parametrize("neighbour", [False, True])
@pytest.mark.parametrize("max_tokens", [0, 1, 2])
def test_who_drafts_finds_no_page_that_the_mtp_layer_has_not_written(
    max_tokens: int, neighbour: bool
) -> None:
    engine = SharingEngine(max_drafts=3)
    if neighbour:  # whose steps make drafts
        engine.add("neighbour", [9] * 5)
    engine.add("short", text(14), max_tokens)
    engine.finish()
    assert engine.ask(text(14), max_tokens) == 12, "nor does this one draft"
    assert engine.ask(text(14), 8) == 0
    assert engine.ask(text(14), 8) == 12, "the page with all rows took the other's place"
    assert engine.ask(text(14), max_tokens) == 12


def test_no_end_makes_a_page_look_written_by_the_mtp_layer() -> None:
    """An end among accepted drafts: rows behind it hold on the device, and count for its limit."""
    num_found = 0
    for first in range(60):
        prompt = text(5, first)
        for max_tokens, count in ((6, 4), (10, 8)):  # pages end where a draft may end the answer
            answer = generate(prompt, count)
            engine = SharingEngine(max_drafts=3)
            engine.ask(prompt, max_tokens, stop_ids=answer[-1:])
            num_found += engine.ask([*prompt, *answer, 1, 2], 8) > 4
    assert num_found > 30


def test_scored_prompts_run_whole_and_fill_the_cache() -> None:
    engine = SharingEngine(max_tokens=6)
    for _ in range(2):
        with engine.rows() as rows:
            assert engine.ask(text(14), 2, score_prompt=True) == 0
        assert sum(rows) == 14
    assert engine.ask(text(14), 2) == 12


def test_a_preempted_request_finds_its_own_pages_and_says_what_it_found_at_first() -> None:
    engine = SharingEngine(max_drafts=3)
    engine.add("a", text(22), 12, score_prompt=True)
    while len(engine.tokens["a"]) < 4:
        engine.step()
    (req,) = engine.core.scheduler.running
    engine.core.scheduler.preempt(req)
    with engine.rows() as rows:
        engine.finish()
    num_tokens = sum(rows) + req.num_found
    assert req.num_found == (num_tokens - 1) // PAGE * PAGE > 22
    assert engine.tokens["a"] == generate(text(22), 12)
    assert engine.found["a"] == 0


def test_rows_that_run_again_without_drafts_do_not_count_as_the_mtp_layers() -> None:
    """Near its end a request makes none; who comes then and does gets no rows before it."""
    prompt = text(20, 3)
    engine = SharingEngine(max_drafts=3, max_tokens=8, max_reqs=2)
    engine.add("a", prompt, 5)
    while not engine.tokens["a"]:
        engine.step()
    engine.add("failed", [*prompt, 3, 3, 3], 1)  # its end takes the shared pages from the cache
    engine.step()
    assert len(engine.tokens["a"]) in (3, 4), "two tokens are to come at most, and one at least"
    engine.runtime.fail = True
    engine.step()
    engine.runtime.fail = False
    assert engine.ends == {"a": "", "failed": "engine_error"}
    engine.core.scheduler.preempt(engine.core.scheduler.running[0])
    engine.step()
    engine.add("drafts", text(5), 8)
    engine.finish()
    assert engine.found["a"] == 0
    assert engine.tokens["a"] == generate(prompt, 5)
    assert engine.ends["a"] == engine.ends["drafts"] == "length"
    assert engine.ask(prompt, 8) == 0
    assert engine.ask(prompt, 8) == 16


def test_positions_that_are_not_scored_yet_are_not_found_after_a_preemption() -> None:
    engine = SharingEngine(max_tokens=5)
    engine.add("a", text(22), 3, score_prompt=True)
    engine.step()
    engine.step()
    (req,) = engine.core.scheduler.running
    engine.core.scheduler.preempt(req)
    with engine.rows() as rows:
        engine.finish()
    assert req.num_found == 8, "two steps scored ten positions"
    assert sum(rows) == 14


def test_a_position_that_ends_anothers_page_is_scored_after_a_preemption() -> None:
    engine = SharingEngine(max_tokens=7)
    engine.ask(text(22), 1)
    engine.add("a", text(22), 3, score_prompt=True)
    engine.step()
    (req,) = engine.core.scheduler.running
    assert req.num_scored == 7, "the next position is the last of the second page"
    engine.core.scheduler.preempt(req)
    engine.finish()
    assert req.num_found == 4, "the second page is there, and its last position has no score"
    assert engine.scored["a"] == text(22)[1:]


def test_without_the_cache_nothing_is_kept_and_prompts_run_whole() -> None:
    engine = SharingEngine(EngineOptions(prefix_cache=False))
    for _ in range(2):
        with engine.rows() as rows:
            assert engine.ask(text(14)) == 0
        assert sum(rows) == 14
        pages = engine.core.scheduler.pages
        assert pages.num_blank == pages.num_usable


@pytest.mark.parametrize("failing", ["step", "draft"])
def test_what_a_failed_request_held_is_found_by_nobody(failing: str) -> None:
    engine = SharingEngine(max_drafts=3)
    engine.add("failed", text(14), 8)
    engine.step()
    engine.runtime.fail = failing == "step"
    engine.runtime.fail_drafts = failing == "draft"
    engine.step()
    assert engine.ends["failed"] == "engine_error"
    engine.runtime.fail = engine.runtime.fail_drafts = False
    assert engine.ask(text(14), 8) == 0
    assert engine.ask(text(14), 8) == 12


def test_what_a_request_held_that_gave_nan_is_found_by_nobody() -> None:
    engine = SharingEngine()
    engine.add("failed", text(14), 8)
    engine.step()
    run = engine.runtime.run

    def gives_nan(batch: StepBatch) -> StepResult:
        result = run(batch)
        result.logprobs = [math.nan] * len(result.logprobs)
        return result

    with patch.object(engine.runtime, "run", gives_nan):
        engine.step()
    assert engine.ends["failed"] == "model_error"
    assert engine.ask(text(14), 8) == 0
    assert engine.ask(text(14), 8) == 12


def test_who_shares_a_page_with_a_failed_request_goes_on() -> None:
    engine = SharingEngine(max_reqs=2, max_tokens=4)
    engine.ask(text(9), 1)
    engine.add("good", text(9), 12)
    engine.step()
    engine.add("failed", [*text(9), 3, 3, 3], 1)
    engine.step()  # a decode step
    engine.runtime.fail = True
    engine.step()  # an extend step of the second alone
    assert engine.ends == {"r0": "length", "failed": "engine_error", "good": ""}
    engine.runtime.fail = False
    engine.finish()
    assert engine.tokens["good"] == generate(text(9), 12)
    assert engine.ask(text(9), 1) == 0


def test_a_cancelled_request_leaves_the_pages_that_it_filled() -> None:
    engine = SharingEngine(max_tokens=8)
    engine.add("a", text(30))
    engine.step()
    (event,) = engine.core.handle(Cancel("a"))
    assert isinstance(event, Output)
    assert engine.ask(text(30)) == 8


def test_a_step_computes_keys_of_new_pages_and_none_of_who_waits() -> None:
    engine = SharingEngine(num_pages=1 + 13)
    engine.add("running", text(20), 30)
    prompt = [*text(12), *[3] * 29]
    engine.add("blocked", prompt, 4)  # eleven pages, of which two or three are kept
    engine.step()
    engine.step()
    with patch.object(PrefixCache, "key", autospec=True, side_effect=PrefixCache.key) as key:
        for _ in range(20):
            list(map(_unchecked, [engine]))
    assert key.call_count == 5, "five pages filled; what is looked for has its key"
    engine.finish()
    assert engine.tokens["blocked"] == generate(prompt, 4)


def _unchecked(engine: SharingEngine) -> None:
    """A step without `check_integrity`, which looks at everything."""
    for event in engine.core.step():
        assert isinstance(event, Output)
        engine.tokens[event.request] += [score.token for score in event.tokens]


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("second", [False, True])
def test_of_two_equal_pages_the_first_stays_unless_it_alone_lacks_rows(
    first: bool, second: bool
) -> None:
    pages = PageAllocator(4)
    cache = PrefixCache(pages, PAGE)
    tokens = text(PAGE + 1)
    held = pages.allocate(2, "both")
    key = cache.key(NO_PAGE, tokens, 0)
    for page, has_drafts in zip(held, (first, second), strict=True):
        cache.enter(key, page, NO_PAGE, has_drafts=has_drafts)
        cache.check_integrity()
    kept = held[1] if second and not first else held[0]
    assert cache.find(tokens, 1, with_drafts=False).pages == [kept]
    assert pages.kept == {kept}


def test_a_key_needs_the_token_behind_its_page() -> None:
    cache = PrefixCache(PageAllocator(4), PAGE)
    with pytest.raises(AssertionError, match="what stands behind the page is not known"):
        cache.key(NO_PAGE, [1, 2, 3, 4], 0)
