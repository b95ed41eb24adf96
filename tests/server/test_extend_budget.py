"""How far a prompt may hold up answers: rows of prefill steps over made-up step times."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fake_runtime import FakeLimits, FakeRuntime, generate
from hypothesis import given
from hypothesis import strategies as st
from sharing_engine import text

from lostwax.ir.contract.step_plan import StepPlan
from lostwax.server.engine.extend_budget import FIRST_ROWS, ExtendBudget
from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.messages import Output, Submit
from lostwax.server.engine.runtime import Ticket


def _settled(budget: ExtendBudget, cost: Callable[[int], float], steps: int = 40) -> list[int]:
    rows: list[int] = []
    for _ in range(steps):
        rows.append(budget.rows)
        budget.note_extend(budget.rows, cost(budget.rows))
    return rows


@given(
    fixed=st.floats(0, 0.05), per_row=st.floats(1e-5, 1e-2), decode=st.floats(1e-3, 0.1),
    stall=st.floats(1.5, 20),
)  # fmt: skip
def test_rows_come_to_fit_and_then_to_within_a_factor_of_four_of_the_most(
    fixed: float, per_row: float, decode: float, stall: float
) -> None:
    budget = ExtendBudget(stall, 4096)
    budget.note_decode(decode)
    allowed = (stall - 1) * decode
    rows = _settled(budget, lambda n: fixed + per_row * n)[-1]
    assert rows == 1 or fixed + per_row * rows <= allowed
    most = min(4096, (allowed - fixed) / per_row)
    assert 4 * rows > most or 2 * (fixed + per_row * rows) > allowed


def test_rows_grow_by_doubling_and_begin_small() -> None:
    budget = ExtendBudget(3, 512)
    budget.note_decode(1)
    assert _settled(budget, lambda n: n / 1000, 7) == [FIRST_ROWS, 32, 64, 128, 256, 512, 512]


def test_a_step_that_took_too_long_makes_the_next_fit_at_once() -> None:
    budget = ExtendBudget(3, 512)
    budget.note_decode(1)
    _settled(budget, lambda n: n / 1000)
    budget.note_extend(512, 20)  # the context has grown: ten times what is allowed
    assert budget.rows == 32


def test_decode_steps_are_averaged_and_the_last_ones_count_most() -> None:
    budget = ExtendBudget(2, 64)
    for _ in range(30):
        budget.note_decode(1)
    for _ in range(30):
        budget.note_decode(10)
    budget.note_extend(FIRST_ROWS, 4.9)
    assert budget.rows == 2 * FIRST_ROWS


@pytest.mark.parametrize("stall", [1.0, 0.5, -3.0])
def test_a_bound_that_leaves_no_time_is_refused(stall: float) -> None:
    with pytest.raises(ValueError, match="nothing fits beside the decode step itself"):
        ExtendBudget(stall, 512)


class _Timed(FakeRuntime):
    """A device whose steps take a made-up time: `now` tells what has passed."""

    now = 0.0

    def submit(self, plan: StepPlan) -> Ticket:
        self.now += 0.010 if plan.entry == "decode" else 0.001 + 0.002 * plan.num_rows
        return super().submit(plan)


def _gaps(max_stall: float | None) -> tuple[list[float], float, list[int]]:
    """Seconds between tokens of a stream while a prompt of 600 tokens runs; when that has its first
    token; its tokens."""
    runtime = _Timed(FakeLimits(max_tokens=128, num_pages=600, max_context=1000))
    core = EngineCore(runtime, max_stall=max_stall, clock=lambda: runtime.now)
    core.handle(Submit(request="stream", prompt=[3], max_tokens=400, ignore_eos=True))
    for _ in range(10):
        core.step()
    core.handle(Submit(request="prompt", prompt=text(600), max_tokens=3, ignore_eos=True))
    began, last, gaps, first, tokens = runtime.now, runtime.now, list[float](), 0.0, list[int]()
    while len(tokens) < 3:
        for event in core.step():
            assert isinstance(event, Output)
            if event.request == "stream":
                gaps.append(runtime.now - last)
                last = runtime.now
            else:
                first = first or runtime.now - began
                tokens += [score.token for score in event.tokens]
    return gaps, first, tokens


def test_a_stream_never_waits_longer_than_it_is_told_while_a_prompt_runs() -> None:
    for stall in (2.0, 3.0, 6.0):
        gaps, first, tokens = _gaps(stall)
        assert max(gaps[1:]) <= stall * 0.010 + 1e-9
        assert tokens == generate(text(600), 3)
        # 1.3 s of rows alone; half of the time, or two thirds, is the prompt's
        assert first <= 1.3 * 2.2 * stall / (stall - 1)
    gaps, first, _ = _gaps(None)
    assert max(gaps) > 0.2
    assert first < 1.4
