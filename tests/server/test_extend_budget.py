"""How far a prompt may hold up answers: rows of prefill steps over made-up step times."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from engine_bounds import BUDGET_CHECKS, BudgetCheck, settled
from fake_runtime import generate
from hypothesis import given
from hypothesis import strategies as st
from sharing_engine import SharingEngine, text
from stall_trial import STALL_CHECKS, stalled

from lostwax.server.engine.extend_budget import HELD, LEFT, MAX_STALL, MIN_ROWS, ExtendBudget
from lostwax.server.engine.options import EngineOptions


@given(
    fixed=st.floats(0, 0.05), per_row=st.floats(1e-5, 1e-2), decode=st.floats(1e-3, 0.1),
    stall=st.floats(1.5, 20),
)  # fmt: skip
def test_rows_come_to_fit_and_then_to_within_a_factor_of_four_of_the_most(
    fixed: float, per_row: float, decode: float, stall: float
) -> None:
    budget = ExtendBudget(stall, 4096)
    budget.note_decode(1, decode)
    allowed = (stall - 1) * decode
    tried = settled(budget, lambda n: fixed + per_row * n, 400)
    for rows in tried[20:]:
        assert rows == MIN_ROWS or fixed + per_row * rows <= (2 - 2 * LEFT) * allowed + 1e-9
    num_late = sum(fixed + per_row * rows > allowed for rows in tried[20:])
    assert tried[-1] == MIN_ROWS or num_late <= 400 / HELD
    most = min(4096.0, ((1 - LEFT) * allowed - fixed) / per_row)
    assert 2 * max(tried[-HELD:]) > most


def test_rows_grow_by_doubling_and_begin_small() -> None:
    budget = ExtendBudget(3, 512)
    budget.note_decode(1, 1)
    assert settled(budget, lambda n: n / 1000, 7) == [MIN_ROWS, 32, 64, 128, 256, 512, 512]


def test_a_step_that_took_too_long_makes_the_next_fit_at_once() -> None:
    budget = ExtendBudget(3, 512)
    budget.note_decode(1, 1)
    settled(budget, lambda n: n / 1000)
    budget.note_extend(512, 1, 20)  # the context has grown: ten times what is allowed
    assert budget.rows == 32
    again = settled(budget, lambda n: n / 1000, HELD + 2)
    assert again == [32, 64, 128] + (HELD - 2) * [256] + [512]  # fewer rows than those fit at once


def test_a_step_of_far_fewer_rows_that_was_late_says_nothing_of_more() -> None:
    budget = ExtendBudget(3, 512)
    budget.note_decode(1, 1)
    settled(budget, lambda n: n / 1000)
    budget.note_extend(10, 1, 2.1)
    assert budget.rows == 512
    assert settled(budget, lambda n: n / 1000, 2)[-1] == 512


def test_decode_steps_are_averaged_and_the_last_ones_count_most() -> None:
    budget = ExtendBudget(2, 64)
    for _ in range(30):
        budget.note_decode(1, 1)
    for _ in range(30):
        budget.note_decode(1, 10)
    budget.note_extend(MIN_ROWS, 1, 6.5)
    assert budget.rows == 2 * MIN_ROWS


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
