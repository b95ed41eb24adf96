"""Any traffic over an engine whose prefix cache has a tier in host memory."""

from __future__ import annotations

import pytest
from host_machine import HostMachine
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

SEARCH = settings(
    max_examples=150,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


@pytest.mark.parametrize(
    ("slots", "moves"),
    [
        pytest.param(3, 64, marks=pytest.mark.slow),
        pytest.param(40, 1, marks=pytest.mark.slow),
        (3, 1),
        pytest.param(40, 64, marks=pytest.mark.slow),
    ],
)
def test_a_host_tier_changes_no_answer(slots: int, moves: int) -> None:
    class Machine(HostMachine):
        num_host_pages = slots
        max_moves = moves

    run_state_machine_as_test(Machine, settings=SEARCH)
    assert Machine.num_restored > 10, "hardly a page ever came back"
