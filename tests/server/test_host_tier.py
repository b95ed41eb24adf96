"""Prefixes that give way go to host memory and come back: which, when, and how many a step."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from engine_machine import tier_of
from fake_runtime import generate
from sharing_engine import PAGE, SharingEngine, text
from step_oracle import StepBatch

from lostwax.ir.contract.step import StepResult
from lostwax.ir.contract.step_plan import Move, StepPlan
from lostwax.server.engine.host_tier import HostTier
from lostwax.server.engine.messages import Cancel
from lostwax.server.engine.options import EngineOptions
from lostwax.server.engine.runtime import Ticket


def _save(page: int, slot: int) -> Move:
    return Move(page, slot, is_restore=False)


def _restore(page: int, slot: int) -> Move:
    return Move(page, slot, is_restore=True)


def _full(num_slots: int, keys: str, max_moves: int = 64) -> HostTier:
    """A tier that has saved pages 1, 2, … of these keys."""
    tier = HostTier(num_slots, max_moves)
    for page, key in enumerate(keys, 1):
        tier.save(key.encode(), page, has_drafts=True)
    while tier.has_unsaved:
        tier.take_moves(())
    return tier


def test_a_bounded_number_is_saved_a_step_and_what_is_written_at_once() -> None:
    tier = HostTier(9, max_moves=2)
    for page in range(1, 8):
        tier.save(b"%d" % page, page, has_drafts=False)
    assert tier.take_moves((7, 5, 9)) == (_save(7, 6), _save(5, 4))
    assert tier.take_moves((6, 3, 4)) == (_save(6, 5), _save(3, 2), _save(4, 3))
    assert tier.take_moves(()) == (_save(1, 0), _save(2, 1))
    assert tier.take_moves(()) == ()
    assert tier.num_saved == 7


def test_what_is_saved_already_is_not_saved_again() -> None:
    tier = _full(3, "abc")
    tier.save(b"a", 9, has_drafts=True)
    tier.save(b"b", 8, has_drafts=False)
    assert not tier.has_unsaved
    tier.save(b"d", 7, has_drafts=True)  # in the place of c: a and b were of use since
    assert [tier.has(key.encode(), with_drafts=False) for key in "abcd"] == [1, 1, 0, 1]


def test_a_page_with_rows_of_the_mtp_layer_takes_the_place_of_one_without() -> None:
    tier = HostTier(2)
    tier.save(b"a", 1, has_drafts=False)
    assert tier.take_moves(()) == (_save(1, 0),)
    assert tier.has(b"a", with_drafts=False)
    assert not tier.has(b"a", with_drafts=True)
    tier.save(b"a", 2, has_drafts=True)
    assert tier.take_moves(()) == (_save(2, 0),)
    assert tier.has(b"a", with_drafts=True)
    tier.check_integrity()


def test_a_page_comes_back_behind_the_saves_that_it_needs() -> None:
    """Its slot's, and that of what the page held."""
    tier = HostTier(3, max_moves=1)
    for page, key in enumerate("abc", 1):
        tier.save(key.encode(), page, has_drafts=True)
    tier.restore([b"c", b"a"], [2, 4])
    saves = (_save(2, 1), _save(3, 2), _save(1, 0))
    assert tier.take_moves(()) == (*saves, _restore(2, 2), _restore(4, 0))
    assert (tier.num_saved, tier.num_restored) == (3, 2)


def test_a_save_whose_slot_is_needed_is_made_no_more() -> None:
    tier = HostTier(2)
    for page, key in enumerate("abc", 1):
        tier.save(key.encode(), page, has_drafts=True)
        tier.check_integrity()
    assert tier.take_moves((1, 2, 3)) == (_save(2, 1), _save(3, 0))


def test_a_slot_is_written_again_behind_the_restore_from_it() -> None:
    tier = _full(2, "ab")
    tier.restore([b"a"], [7])
    for page, key in ((5, b"c"), (6, b"d")):
        tier.save(key, page, has_drafts=True)
    assert tier.take_moves(()) == (_restore(7, 0), _save(5, 1), _save(6, 0))
    assert not tier.has(b"a", with_drafts=False)


def test_nobody_knows_what_a_failed_step_has_copied() -> None:
    tier = _full(3, "ab")
    tier.save(b"c", 9, has_drafts=True)
    tier.restore([b"a"], [7])
    tier.clear()
    tier.check_integrity()
    assert not any(tier.has(key, with_drafts=False) for key in (b"a", b"b", b"c"))
    assert tier.take_moves((9, 7)) == ()


def _rounds(engine: SharingEngine, length: int = 33) -> list[int]:
    """What each of two rounds over three prompts, which do not fit together, finds."""
    return [engine.ask(text(length, first)) for _ in range(2) for first in (0, 20, 40)]


@pytest.mark.parametrize("drafts", [0, 3])
def test_prefixes_that_gave_way_are_found_in_host_memory(drafts: int) -> None:
    without = SharingEngine(max_drafts=drafts, num_pages=12)
    assert _rounds(without) == [0] * 6
    engine = SharingEngine(max_drafts=drafts, num_pages=12, num_host_pages=40)
    assert _rounds(engine) == [0, 0, 0, 32, 32, 32]
    stats = engine.core.stats
    assert stats.prefix_tokens == 96
    assert stats.host_pages_restored >= 20
    assert stats.host_pages_saved >= 24
    assert (without.core.stats.host_pages_saved, without.core.stats.host_pages_restored) == (0, 0)


def test_what_lies_in_host_memory_is_bounded() -> None:
    engine = SharingEngine(num_pages=12, num_host_pages=3)
    found = _rounds(engine)
    assert found[:3] == [0] * 3
    assert sum(found) <= 3 * 3 * PAGE


def test_without_a_prefix_cache_nothing_is_saved() -> None:
    engine = SharingEngine(EngineOptions(prefix_cache=False), num_pages=12, num_host_pages=40)
    assert _rounds(engine) == [0] * 6
    assert "host memory" not in engine.core.capacity


def test_the_engine_says_what_host_memory_holds() -> None:
    engine = SharingEngine(num_host_pages=40)
    assert engine.core.capacity.endswith("; host memory holds 160 more of prefixes")


def _bounded(max_moves: int) -> tuple[SharingEngine, list[StepPlan]]:
    """An engine whose host memory holds a prefix of eight pages, which its cache does not."""
    engine = SharingEngine(num_pages=16, num_host_pages=40)
    engine.ask(text(33))
    engine.ask(text(58, 20), 2)
    setattr(tier_of(engine.core), "_max_moves", max_moves)  # noqa: B010
    plans: list[StepPlan] = []
    submit = engine.runtime.submit

    def note(plan: StepPlan) -> Ticket:
        plans.append(plan)
        return submit(plan)

    setattr(engine.runtime, "submit", note)  # noqa: B010
    return engine, plans


def _num_restored(plan: StepPlan) -> int:
    return sum(move.is_restore for move in plan.moves)


def test_beside_answers_a_request_waits_until_its_pages_are_back() -> None:
    engine, plans = _bounded(2)
    engine.add("stream", [5, 6], 20)
    for _ in range(3):
        engine.step()
    del plans[:]
    engine.add("prompt", text(33))
    engine.finish()
    assert engine.tokens["stream"] == generate([5, 6], 20)
    assert engine.tokens["prompt"] == generate(text(33), 5)
    assert engine.found["prompt"] == 32
    restored = [_num_restored(plan) for plan in plans]
    assert max(restored) == 2
    first = next(i for i, plan in enumerate(plans) if plan.entry == "extend")
    assert sum(restored[: first + 1]) == sum(restored) == 8
    assert [plan.entry for plan in plans[:3]] == ["decode"] * 3, "the answer went on meanwhile"


def test_alone_all_pages_come_back_with_the_first_step() -> None:
    engine, plans = _bounded(2)
    assert engine.ask(text(33)) == 32
    assert _num_restored(plans[0]) == 8


def test_who_ends_while_pages_come_back_leaves_nothing_held() -> None:
    engine, plans = _bounded(2)
    engine.add("stream", [5, 6], 20)
    for _ in range(3):
        engine.step()
    engine.add("prompt", text(33))
    engine.step()
    engine.core.handle(Cancel("prompt"))
    engine.core.scheduler.check_integrity()
    engine.finish()
    assert 0 < sum(map(_num_restored, plans)) < 8
    assert engine.tokens["stream"] == generate([5, 6], 20)
    assert engine.core.scheduler.pages.num_free == engine.core.scheduler.pages.num_usable
    assert engine.ask(text(33)) == 32


def test_a_preempted_request_finds_its_rows_in_host_memory() -> None:
    engine = SharingEngine(num_pages=16, num_host_pages=40)
    engine.add("victim", text(33), 12)
    for _ in range(6):
        engine.step()
    engine.core.scheduler.preempt(engine.core.scheduler.running[0])
    engine.add("urgent", text(50, 20), 8, priority=-1)
    engine.finish()
    assert engine.tokens["victim"] == generate(text(33), 12)
    assert engine.tokens["urgent"] == generate(text(50, 20), 8)
    assert engine.core.stats.host_pages_restored > 0


def _loses(moves: Sequence[Move]) -> None:
    """What a device does that failed."""
    assert moves


def test_who_was_to_begin_behind_copies_of_a_failed_step_begins_anew() -> None:
    engine, plans = _bounded(2)
    engine.add("stream", [5, 6], 20)
    for _ in range(3):
        engine.step()
    engine.add("prompt", text(33))
    engine.step()
    move = engine.runtime.move
    engine.runtime.fail = True
    setattr(engine.runtime, "move", _loses)  # noqa: B010
    engine.step()
    assert _num_restored(plans[-1]) == 2
    engine.runtime.fail = False
    setattr(engine.runtime, "move", move)  # noqa: B010
    engine.finish()
    assert engine.ends["stream"] == "engine_error"
    assert engine.tokens["prompt"] == generate(text(33), 5)
    assert engine.found["prompt"] == 0


def test_what_a_request_held_that_gave_no_number_is_not_found_in_host_memory() -> None:
    engine = SharingEngine(num_pages=12, num_host_pages=40)
    assert _rounds(engine)[3:] == [32] * 3
    run = engine.runtime.run

    def gives_no_number(batch: StepBatch) -> StepResult:
        result = run(batch)
        result.logprobs = [math.nan] * len(result.logprobs)
        return result

    setattr(engine.runtime, "run", gives_no_number)  # noqa: B010
    engine.add("fails", text(33))
    engine.finish()
    assert engine.ends["fails"] == "model_error"
    setattr(engine.runtime, "run", run)  # noqa: B010
    assert engine.ask(text(33)) == 0
    assert engine.ask(text(33, 20)) == 32, "it held none of these"


def test_after_a_step_that_failed_nothing_is_found_in_host_memory() -> None:
    engine = SharingEngine(num_pages=12, num_host_pages=40)
    assert _rounds(engine)[3:] == [32] * 3
    engine.runtime.fail = True
    engine.add("fails", [1, 2, 3])
    engine.finish()
    assert engine.ends["fails"] == "engine_error"
    engine.runtime.fail = False
    assert engine.ask(text(33, 0)) == 0
