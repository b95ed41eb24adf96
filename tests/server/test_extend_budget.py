"""How far a prompt may hold up answers: rows of prefill steps over made-up step times."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from engine_bounds import BUDGET_CHECKS, BudgetCheck, decoded, settled
from fake_runtime import generate
from hypothesis import given
from hypothesis import strategies as st
from sharing_engine import SharingEngine, text
from stall_trial import STALL_CHECKS, stalled

from lostwax.server.engine.extend_budget import MAX_STALL, MIN_ROWS, ExtendBudget
from lostwax.server.engine.options import EngineOptions
from lostwax.server.engine.step_times import STALE


@given(
    fixed=st.floats(0, 0.05), per_row=st.floats(1e-5, 1e-2), decode=st.floats(1e-3, 0.1),
    stall=st.floats(1.5, 20),
)  # fmt: skip
def test_rows_come_to_the_most_that_fit_with_certainty(
    fixed: float, per_row: float, decode: float, stall: float
) -> None:
    budget = ExtendBudget(stall, 4096)
    decoded(budget, 1, decode)
    allowed = (stall - 1) * decode
    tried = settled(budget, lambda n: fixed + per_row * n, 400)
    late = [rows for rows in tried if rows > MIN_ROWS and fixed + per_row * rows > allowed]
    assert all(fixed + per_row * rows <= 9 / 8 * allowed for rows in late), "foretold too low"
    assert len(late) <= 2 * (1 + 400 // STALE)
    fits = [2 << n for n in range(4, 12) if 2 * (fixed + per_row * (1 << n)) <= allowed]
    assert max(tried[-STALE:]) >= max(fits, default=MIN_ROWS)


def test_rows_begin_small_and_follow_what_steps_took() -> None:
    budget = ExtendBudget(3, 512)
    decoded(budget, 1, 1)
    rows = settled(budget, lambda n: n / 1000, 5)
    assert rows == [MIN_ROWS, MIN_ROWS, 512, 512, 512]  # 32 times as long would fit
    budget = ExtendBudget(3, 512)
    decoded(budget, 1, 1)
    rows = settled(budget, lambda n: 0.4 + n / 1000, 8)
    assert rows == [MIN_ROWS, MIN_ROWS, 64, 64, 256, 256, 512, 512]  # four times as long would fit


def test_a_step_that_took_too_long_is_not_run_again_for_a_while() -> None:
    budget = ExtendBudget(3, 512)
    decoded(budget, 1, 1)
    settled(budget, lambda n: n / 1000)
    budget.note_extend(512, 1, 20)
    again = settled(budget, lambda n: n / 1000, STALE + 2)
    assert again == STALE * [256] + 2 * [512]


def test_a_step_that_took_a_little_too_long_once_is_run_again() -> None:
    budget = ExtendBudget(3, 512)
    decoded(budget, 1, 1)
    settled(budget, lambda n: n / 1000)
    budget.note_extend(512, 1, 3)
    assert budget.rows_at(1, 1, is_mixed=False) == 512


def test_a_step_far_from_a_power_of_two_says_what_more_rows_take_at_least() -> None:
    budget = ExtendBudget(3, 512)
    decoded(budget, 1, 1)
    settled(budget, lambda n: n / 1000)
    for _ in range(3):
        budget.note_extend(300, 1, 1e-6)
    assert budget.rows_at(1, 1, is_mixed=False) == 512
    budget.note_extend(300, 1, 2.5)
    assert budget.rows_at(1, 1, is_mixed=False) == 256


def test_a_step_far_from_a_power_of_two_says_a_little_where_nothing_is_known() -> None:
    """So many rows take as many times as long at most."""
    for seconds, rows in ((0.9, 512), (1.1, 256)):
        budget = ExtendBudget(3, 512)
        decoded(budget, 1, 1)
        for _ in range(2):
            budget.note_extend(150, 1, seconds * 150 / 256)
        assert budget.rows_at(1, 1, is_mixed=False) == rows


def test_rows_of_short_contexts_beside_a_long_one_say_what_steps_take_at_least() -> None:
    budget = ExtendBudget(3, 512)
    decoded(budget, 1, 1)
    for _ in range(4):
        budget.note_extend(512, 4096, 0.5, is_even=False)
    assert budget.rows_at(4096, 1, is_mixed=False) == MIN_ROWS
    for _ in range(2):
        budget.note_extend(512, 4096, 1.5)
        budget.note_extend(512, 4096, 0.5, is_even=False)
    assert budget.rows_at(4096, 1, is_mixed=False) == 512
    budget.note_extend(512, 4096, 9.0, is_even=False)
    assert budget.rows_at(4096, 1, is_mixed=False) < 512


def test_decode_steps_are_averaged_and_the_last_ones_count_most() -> None:
    budget = ExtendBudget(2, 64)
    for _ in range(30):
        budget.note_decode(1, 1)
    for _ in range(2):
        budget.note_extend(64, 1, 1.1)
    assert budget.rows_at(1, 1, is_mixed=False) == MIN_ROWS
    budget.note_decode(1, 100)  # a hiccup counts as twice what steps take, and a sixteenth
    assert budget.rows_at(1, 1, is_mixed=False) == MIN_ROWS
    budget.note_decode(1, 100)
    assert budget.rows_at(1, 1, is_mixed=False) == 64
    budget.note_decode(1, 0.9)  # a shorter one counts a fourth
    assert budget.rows_at(1, 1, is_mixed=False) == MIN_ROWS
    for _ in range(60):
        budget.note_decode(1, 10)
    assert budget.rows_at(1, 1, is_mixed=False) == 64


def test_decode_steps_beside_a_prompt_hardly_make_others_seem_longer() -> None:
    """They find the prompt's in the caches, a stream's usual wait is without."""
    for is_beside, rows in ((True, MIN_ROWS), (False, 64)):
        budget = ExtendBudget(2, 64)
        for _ in range(30):
            budget.note_decode(1, 1)
        for _ in range(2):
            budget.note_extend(64, 1, 1.1)
        for _ in range(8):
            budget.note_decode(1, 1.3, is_beside=is_beside)
        assert budget.rows_at(1, 1, is_mixed=False) == rows


def test_the_first_decode_step_of_a_number_of_answers_tells_nothing() -> None:
    budget = ExtendBudget(2, 64)
    for num_answers in (1, 4):
        budget.note_decode(num_answers, 100)
        assert not budget.knows_decode(num_answers)
        budget.note_decode(num_answers, 1)
        for _ in range(2):
            budget.note_extend(64, 1, 1.2)
        assert budget.rows_at(1, num_answers, is_mixed=False) == MIN_ROWS


def test_what_nobody_waits_for_may_take_too_long() -> None:
    """A flat cost would never be tried else."""
    for explores, most in ((False, MIN_ROWS), (True, 512)):
        budget = ExtendBudget(4, 512)
        decoded(budget, 1, 1)
        budget.explores = explores
        settled(budget, lambda n: 1.6 + n / 1000, 14)
        budget.explores = False
        assert budget.rows_at(1, 1, is_mixed=False) == most
        assert budget.rows_at(5000, 1, is_mixed=False) == MIN_ROWS
        rows = MIN_ROWS
        while rows < most:  # each says how much longer twice its rows take there
            for _ in range(2):
                budget.note_extend(rows, 5000, 1.7)
            rows *= 2
            assert budget.rows_at(5000, 1, is_mixed=False) == rows


@pytest.mark.parametrize("check", BUDGET_CHECKS, ids=lambda check: check.__name__)
def test_bounds_of_rows(check: BudgetCheck) -> None:
    check(ExtendBudget)


@pytest.mark.parametrize("drafts", [0, 3])
@pytest.mark.parametrize("rows", [1, 2, 3, 5, 7, 11])
def test_prompts_in_chunks_of_any_size_have_their_own_answers(rows: int, drafts: int) -> None:
    """Chunks that end in the middle of a page, or hold one row, beside an answer, and again from
    the pages that they left."""
    engine = SharingEngine(
        EngineOptions(max_extend_rows=rows, max_stall=3.0), num_pages=100, max_drafts=drafts
    )
    engine.add("stream", text(3), 30)
    for _ in range(4):
        engine.step()
    for name in ("prompt", "again"):
        engine.add(name, text(23), 6)
        while not engine.ends.get(name):
            engine.step()
    engine.finish()
    assert engine.tokens["stream"] == generate(text(3), 30)
    assert engine.tokens["prompt"] == engine.tokens["again"] == generate(text(23), 6)
    assert engine.found["again"] == 20


@pytest.mark.parametrize("stall", [1.0, 0.5, -3.0])
def test_a_bound_that_leaves_no_time_is_refused(stall: float) -> None:
    with pytest.raises(ValueError, match="nothing fits beside the decode step"):
        ExtendBudget(stall, 512)


@pytest.mark.parametrize("check", STALL_CHECKS, ids=lambda check: check.__name__)
def test_a_prompt_beside_streams(check: Callable[[], None]) -> None:
    check()


def test_without_a_bound_each_prefill_step_is_as_large_as_any() -> None:
    found = stalled(0.002, None)
    assert max(plan.num_rows for plan in found.plans) == 128
    assert max(found.gaps) > 0.2


def test_streams_have_a_row_each_in_the_steps_of_a_prompt() -> None:
    plans = stalled(0.0009, MAX_STALL).plans
    mixed = [plan for plan in plans if plan.entry == "extend" and len(plan.seqs) == 3]
    assert {plan.counts[:2] for plan in mixed} == {(1, 1)}
    assert {plan.num_rows for plan in mixed[:-1]} <= {MIN_ROWS, 2 * MIN_ROWS}
