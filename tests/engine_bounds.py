"""What bounds a look at the queue, and a prefill step's rows, at sizes that are seldom met.

A check raises AssertionError where what it is given keeps another bound.
"""

from __future__ import annotations

from collections.abc import Callable

from lostwax.server.engine.extend_budget import MIN_ROWS, ExtendBudget
from lostwax.server.engine.messages import Submit
from lostwax.server.engine.request import Req
from lostwax.server.engine.waiting import LOOK_AHEAD, WaitingQueue

QueueCheck = Callable[[type[WaitingQueue]], None]
BudgetCheck = Callable[[type[ExtendBudget]], None]


def _queued(make: type[WaitingQueue], count: int) -> tuple[WaitingQueue, list[Req]]:
    """A queue of so many requests, and these in order."""
    queue, reqs = make(), list[Req]()
    for number in range(count):
        req = Req(Submit(request=f"r{number}", prompt=[1], max_tokens=1))
        req.rank = (0, number)
        queue.push(req)
        reqs.append(req)
    return queue, reqs


def a_bounded_number_behind_the_first_is_looked_at(make: type[WaitingQueue]) -> None:
    """In order, and the queue stays as it is."""
    for count in (1, 2, LOOK_AHEAD, LOOK_AHEAD + 1, LOOK_AHEAD + 2, 500):
        queue, reqs = _queued(make, count)
        assert queue.passing() == reqs[1 : 1 + LOOK_AHEAD]
        assert len(queue) == count
        assert queue.first() is reqs[0]


def those_who_left_are_not_counted_among_them(make: type[WaitingQueue]) -> None:
    """Though they may still lie in the heap."""
    queue, reqs = _queued(make, 100)
    for req in reqs[::2]:
        queue.remove(req)
    assert queue.passing() == reqs[3 : 3 + 2 * LOOK_AHEAD : 2]


QUEUE_CHECKS: tuple[QueueCheck, ...] = (
    a_bounded_number_behind_the_first_is_looked_at,
    those_who_left_are_not_counted_among_them,
)


def settled(budget: ExtendBudget, cost: Callable[[int], float], steps: int = 40) -> list[int]:
    """The rows of so many steps, each as large as it may be."""
    rows: list[int] = []
    for _ in range(steps):
        rows.append(budget.rows)
        budget.note_extend(budget.rows, cost(budget.rows))
    return rows


def rows_stay_within_what_a_step_takes(make: type[ExtendBudget]) -> None:
    """Whatever that is, a single row, or no power of two."""
    for most, rows in ((1, 1), (2, 2), (15, 8), (16, 16), (17, 16), (100, 64), (511, 256)):
        budget = make(3, most)
        assert budget.rows == min(MIN_ROWS, rows)
        budget.note_decode(1)
        assert settled(budget, lambda n: n / 1e6, 20)[-1] == rows
        assert min(settled(budget, lambda n: 5.0 * n)) == min(MIN_ROWS, rows)


def time_for_less_than_one_row_gives_the_least_rows(make: type[ExtendBudget]) -> None:
    """A prompt goes on in any case."""
    budget = make(1.001, 512)
    budget.note_decode(1e-4)
    assert set(settled(budget, lambda n: 60.0 * n)) == {MIN_ROWS}


def rows_stay_the_least_before_an_answer_took_a_step(make: type[ExtendBudget]) -> None:
    """What a stream may wait is not known."""
    assert set(settled(make(3, 512), lambda n: n / 1e6)) == {MIN_ROWS}


def a_step_of_fewer_rows_than_it_might_have_lets_the_next_have_no_more(
    make: type[ExtendBudget],
) -> None:
    """It says nothing of more."""
    budget = make(3, 512)
    budget.note_decode(1)
    for _ in range(10):
        budget.note_extend(MIN_ROWS - 1, 0.001)
    assert budget.rows == MIN_ROWS


BUDGET_CHECKS: tuple[BudgetCheck, ...] = (
    rows_stay_within_what_a_step_takes,
    time_for_less_than_one_row_gives_the_least_rows,
    rows_stay_the_least_before_an_answer_took_a_step,
    a_step_of_fewer_rows_than_it_might_have_lets_the_next_have_no_more,
)
