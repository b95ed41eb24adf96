"""Which rows of a step may wait for masks: in order, among its own, no more than there is room."""

from __future__ import annotations

import pytest

from lostwax.backends.runtime.masked_rows import refusal_of_masked
from lostwax.ir.contract.step_plan import Span, StepPlan

NUM_ROWS = 5
MOST = 4


def _refusal(*masked: Span) -> str:
    """Of a step of `NUM_ROWS` rows that all pick, where `MOST` may have masks."""
    plan = StepPlan(
        entry="decode", head="sample", seqs=(1,), counts=(NUM_ROWS,), ends=(NUM_ROWS,),
        logits=((0, NUM_ROWS),), masked=masked,
    )  # fmt: skip
    return refusal_of_masked(plan, MOST)


@pytest.mark.parametrize(
    "masked",
    [
        (),
        ((0, 1),),
        ((NUM_ROWS - 1, 1),),
        ((0, 1), (1, 1)),
        ((0, 2), (2, 1), (4, 1)),
        ((1, MOST),),
    ],
)
def test_rows_in_order_may_wait(masked: tuple[Span, ...]) -> None:
    assert _refusal(*masked) == ""


@pytest.mark.parametrize(
    "masked",
    [
        ((0, 0),),
        ((0, -1),),
        ((1, 1), (2, 0)),
        ((-1, 1),),
        ((-1, 2),),
        ((0, 2), (1, 1)),
        ((2, 1), (0, 1)),
    ],
)
def test_no_row_a_row_twice_and_rows_out_of_order_are_refused(masked: tuple[Span, ...]) -> None:
    assert "not in order, or one waits twice" in _refusal(*masked)


def test_a_row_behind_the_last_is_refused() -> None:
    assert _refusal((NUM_ROWS - 1, 2)) == "logit row 5 waits for a mask; the step has 5"


def test_more_rows_than_there_is_room_for_are_refused() -> None:
    assert _refusal((0, MOST + 1)) == "5 rows wait for masks; 4 can"
    assert _refusal((0, 2), (2, 3)) == "5 rows wait for masks; 4 can"
