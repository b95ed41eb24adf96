"""Any traffic over an engine whose prefix cache has a tier in host memory."""

from __future__ import annotations

import pytest
from engine_machine import EngineMachine
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

SEARCH = settings(
    max_examples=60,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


@pytest.mark.parametrize(("slots", "moves"), [(1, 1), (3, 1), (3, 64), (40, 1), (40, 64)])
def test_a_host_tier_changes_no_answer(slots: int, moves: int) -> None:
    restored: list[int] = []

    class Machine(EngineMachine):
        num_host_pages = slots
        max_moves = moves

        def teardown(self) -> None:
            super().teardown()
            if self.asked:
                restored.append(self.core.stats.host_pages_restored)

    run_state_machine_as_test(Machine, settings=SEARCH)
    assert sum(restored) > 0, f"of {len(restored)} runs nothing ever came back"
