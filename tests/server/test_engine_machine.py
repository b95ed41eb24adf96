"""No traffic makes the engine lose a page, mix up answers or end a request twice."""

from __future__ import annotations

import pytest
from engine_machine import EngineMachine, StallMachine
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test


def test_any_traffic_gets_the_answers_it_gets_alone() -> None:
    few = settings(max_examples=150, stateful_step_count=50, deadline=None)
    run_state_machine_as_test(EngineMachine, settings=few)


def test_any_traffic_gets_them_while_prompts_may_not_stall_answers() -> None:
    few = settings(max_examples=100, stateful_step_count=50, deadline=None)
    run_state_machine_as_test(StallMachine, settings=few)


@pytest.mark.slow
@pytest.mark.parametrize("machine", [EngineMachine, StallMachine])
def test_much_traffic_gets_the_answers_it_gets_alone(machine: type[EngineMachine]) -> None:
    many = settings(max_examples=5000, stateful_step_count=80, deadline=None)
    run_state_machine_as_test(machine, settings=many)
