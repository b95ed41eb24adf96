"""Who of several prompts has which rows of a step: see `share_trial.py`."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from engine_bounds import decoded
from fake_runtime import FakeLimits
from share_trial import SHARE_CHECKS

from lostwax.server.engine.extend_budget import ExtendBudget
from lostwax.server.engine.messages import Submit
from lostwax.server.engine.prompt_rows import PromptRows
from lostwax.server.engine.request import Chunk, Req
from lostwax.server.engine.request_pages import RequestPages


@pytest.mark.parametrize("check", SHARE_CHECKS, ids=lambda check: check.__name__)
def test_shares_of_a_step(check: Callable[[], None]) -> None:
    check()


def test_a_step_without_answers_leaves_time_for_theirs() -> None:
    """Of the same budget one in which they go on has more rows, of which they have one each."""
    limits = FakeLimits()
    budget = ExtendBudget(3, 512)
    decoded(budget, 1, 1)
    for _ in range(2):
        budget.note_extend(64, 1, 1.4)
    rows = PromptRows(budget, RequestPages(limits, 0, prefix_cache=False), lambda: None)
    req = Req(Submit(request="a", prompt=[1], max_tokens=5))
    assert rows.bound((), 1, 1) == 64
    assert rows.bound((Chunk.of_next(req),), 1, 1) == 128 - 1
    assert rows.bound((), 0, 1) is None
