"""Drafts are as many as pay, whatever a step costs and however many hold."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest
from fake_runtime import FakeLimits, FakeRuntime, generate
from sharing_engine import text

from lostwax.ir.contract.step_plan import StepPlan
from lostwax.server.engine.draft_length import STALE, WINDOW, DraftLength
from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.messages import Output, Submit
from lostwax.server.engine.options import EngineOptions
from lostwax.server.engine.runtime import Ticket

MOST = 3
Cost = Callable[[int, int], float]
"""Seconds of a step of so many requests with so many drafts."""


def _play(length: DraftLength, cost: Cost, holds: float, num_reqs: int, steps: int) -> list[int]:
    """The drafts of each step, where each draft holds with a probability if those before it do."""
    rng, chosen, before = random.Random(7), list[int](), MOST
    for _ in range(steps):
        drafts = length.choose(num_reqs)
        tokens = 0
        for _ in range(num_reqs):
            held = 0
            while held < before and rng.random() < holds:
                held += 1
            tokens += 1 + held
        length.note(num_reqs, tokens, cost(num_reqs, drafts))
        chosen.append(drafts)
        before = drafts
    return chosen


def _most_often(chosen: list[int]) -> int:
    return Counter(chosen[len(chosen) // 2 :]).most_common(1)[0][0]


@pytest.mark.parametrize("holds", [0.05, 0.3, 0.6, 0.8, 0.95])
@pytest.mark.parametrize("draft_cost", [0.02, 0.1, 0.25, 0.6])
def test_as_many_are_drafted_as_give_most_tokens_a_second(holds: float, draft_cost: float) -> None:
    expected = {
        n: sum(holds**i for i in range(n + 1)) / (1 + draft_cost * n) for n in range(1, MOST + 1)
    }
    chosen = _play(DraftLength(MOST), lambda _, n: 1 + draft_cost * n, holds, 8, 6000)
    gained = [expected[drafts] for drafts in chosen[500:]]
    assert sum(gained) / len(gained) > 0.96 * max(expected.values())


def test_the_first_step_of_a_window_says_nothing_of_its_number() -> None:
    """It verifies drafts of the number before. Two drafts give most, and a slow first step; the
    first step behind them is the fastest of all."""
    length, chosen = DraftLength(2), list[int]()
    for step in range(60 * (WINDOW + 1)):
        drafts = length.choose(1)
        is_first = step % (WINDOW + 1) == 0
        first_s = 100.0 if drafts == 2 else 0.001
        length.note(1, 3 if drafts == 2 else 1, first_s if is_first else 1.0)
        chosen.append(drafts)
    assert _most_often(chosen) == 2


def test_few_and_many_requests_have_numbers_of_their_own() -> None:
    length = DraftLength(MOST)

    def cost(num_reqs: int, drafts: int) -> float:
        return 1 + (0.02 if num_reqs < 8 else 0.9) * drafts

    few, many = list[int](), list[int]()
    for _ in range(4):
        few = _play(length, cost, 0.8, 2, 500)
        many = _play(length, cost, 0.8, 16, 500)
    assert (_most_often(few), _most_often(many)) == (3, 1)


def test_what_no_longer_pays_is_left_and_what_pays_again_is_found() -> None:
    length = DraftLength(MOST)
    assert _most_often(_play(length, lambda _, n: 1 + 0.2 * n, 0.95, 4, 2000)) == 3
    assert _most_often(_play(length, lambda _, n: 1 + 0.2 * n, 0.05, 4, 2000)) == 1
    assert _most_often(_play(length, lambda _, n: 1 + 0.2 * n, 0.95, 4, 2000)) == 3


def test_trying_what_is_beside_the_best_is_rare() -> None:
    chosen = _play(DraftLength(MOST), lambda _, n: 1 + 0.02 * n, 0.9, 4, 40 * STALE * WINDOW)
    assert chosen.count(3) > (1 - 1.5 / STALE) * len(chosen)


@pytest.mark.parametrize("most", [0, 1])
def test_where_there_is_no_choice_none_is_made(most: int) -> None:
    length = DraftLength(most)
    for _ in range(100):
        assert length.choose(4) == most
        length.note(4, 4, 1.0)


class _Timed(FakeRuntime):
    """A step takes a second, and each of its rows `row_s`; `drafts` are those asked for."""

    def __init__(self, row_s: float) -> None:
        limits = FakeLimits(max_context=700, num_pages=700, max_drafts=MOST)
        super().__init__(limits)
        self.row_s, self.now, self.drafts = row_s, 0.0, list[int]()

    def submit(self, plan: StepPlan) -> Ticket:
        self.now += 1.0 + self.row_s * plan.num_rows
        self.drafts.append(plan.drafts)
        return super().submit(plan)


@pytest.mark.parametrize(("row_s", "want"), [(0.0, MOST), (30.0, 1)])
def test_an_engine_drafts_what_pays_and_gives_the_same_answers(row_s: float, want: int) -> None:
    runtime = _Timed(row_s)
    core = EngineCore(runtime, EngineOptions(adapt_drafts=True), clock=lambda: runtime.now)
    core.handle(Submit(request="a", prompt=text(9), max_tokens=600, ignore_eos=True))
    tokens = list[int]()
    while core.has_work:
        for event in core.step():
            assert isinstance(event, Output)
            tokens += [score.token for score in event.tokens]
    assert tokens == generate(text(9), 600)
    assert core.drafting.num_accepted < core.drafting.num_drafted, "some drafts do not hold"
    assert _most_often(runtime.drafts[:-5]) == want
