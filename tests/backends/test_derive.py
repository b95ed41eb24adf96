"""`derive` and the buffers give what the oracle gives, whatever state and buffers held before."""

from __future__ import annotations

import random

import msgspec
import numpy as np
import pytest
from derive_trial import DeriveTrial
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lostwax.backends.runtime.state_table import StateTable
from lostwax.ir.contract.step_plan import NewPage, Span, StepPlan
from lostwax.ir.contract.step_state import STEP_STATE, Enter

SEEDS = st.integers(0, 2**63)
STEPS = 12
SEARCH = settings(
    deadline=None, database=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)


@settings(SEARCH, max_examples=400)
@given(SEEDS)
def test_any_history_gives_the_oracles_inputs(seed: int) -> None:
    DeriveTrial(random.Random(seed)).play(STEPS)


@pytest.mark.slow
@settings(SEARCH, max_examples=10_000, derandomize=False)
@given(SEEDS)
def test_ten_thousand_histories_give_the_oracles_inputs(seed: int) -> None:
    DeriveTrial(random.Random(seed)).play(STEPS)


def test_enter_has_every_field_that_it_writes() -> None:
    entered = {name for name, field in STEP_STATE.items() if "enter" in field.writers}
    fields = {field.name for field in msgspec.structs.fields(Enter)}
    # of other states; that they are written is the fields `biased` and `counted`
    rows = {"bias", "ends", "prompt", "outputs"}
    assert fields == {"seq", *rows, *entered} - {"biased", "counted"}
    assert entered == {*STEP_STATE}, "a row that comes back would keep what it held"


@pytest.mark.parametrize("name", STEP_STATE)
def test_a_step_writes_no_field_but_those_that_say_so(name: str) -> None:
    array = StateTable(2, 2, 1).fields[name]
    if "step" in STEP_STATE[name].writers:
        array[1] = 1
        return
    with pytest.raises(ValueError, match="read-only"):
        array[1] = 1


def test_a_later_plan_writes_the_fields_that_say_so() -> None:
    table = StateTable(2, 2, 1)
    before = {name: array.copy() for name, array in table.fields.items()}
    plan = msgspec.structs.replace(_step((1,)), new_pages=(NewPage(1, 1, 5),))
    table.change(plan)
    changed = {name for name in before if not np.array_equal(before[name], table.fields[name])}
    assert changed == {name for name, field in STEP_STATE.items() if "plan" in field.writers}


def _step(seqs: tuple[int, ...], *entering: Enter, logits: tuple[Span, ...] = ()) -> StepPlan:
    ones = (1,) * len(seqs)
    return StepPlan(
        entry="extend",
        seqs=seqs,
        counts=ones,
        ends=ones,
        tokens=ones,
        entering=entering,
        logits=logits,
    )


BOTH = (Enter(1, (1,), 0, 4, 1), Enter(2, (2,), 0, 4, 1))


@pytest.mark.parametrize(
    ("plan", "why"),
    [
        (_step((1,), Enter(0, (1,), 0, 4, 1)), "sequence 0 enters"),
        (_step((1,), Enter(3, (1,), 0, 4, 1)), "sequence 3 enters; there are 1 to 2"),
        (_step((1,), Enter(1, (1, 2, 3), 0, 4, 1)), "3 pages enter; a sequence has 2 at most"),
        (_step((1, 1), Enter(1, (1,), 0, 4, 1)), "two places"),
        (_step((0,)), "outside 1 to 2"),
        (_step((3,)), "outside 1 to 2"),
        (_step((1,)), "limit"),
        (_step((1,), Enter(1, (1,), 0, 0, 1)), "limit"),
        (_step((1, 2), *BOTH, logits=((0, 3),)), "rows that the step has not"),
        (_step((1, 2), *BOTH, logits=((0, 1), (1, 2))), "rows that the step has not"),
        (_step((1, 2), *BOTH, logits=((2, 1),)), "rows that the step has not"),
    ],
)
def test_plans_that_do_not_suit_the_state_are_refused(plan: StepPlan, why: str) -> None:
    assert why in StateTable(2, 2).refusal(plan)


def test_a_plan_that_wants_every_row_is_taken() -> None:
    assert StateTable(2, 2).refusal(_step((1, 2), *BOTH, logits=((0, 2),))) == ""
