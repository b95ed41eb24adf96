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
    """The rows of so many steps of short contexts, each as large as it may be."""
    rows: list[int] = []
    for _ in range(steps):
        rows.append(budget.rows)
        budget.note_extend(budget.rows, 1, cost(budget.rows))
    return rows


def rows_stay_within_what_a_step_takes(make: type[ExtendBudget]) -> None:
    """Whatever that is, a single row, or no power of two."""
    for most, rows in ((1, 1), (2, 2), (15, 8), (16, 16), (17, 16), (100, 64), (511, 256)):
        budget = make(3, most)
        assert budget.rows == min(MIN_ROWS, rows)
        budget.note_decode(1, 1)
        assert settled(budget, lambda n: n / 1e6, 20)[-1] == rows
        assert min(settled(budget, lambda n: 5.0 * n)) == min(MIN_ROWS, rows)


def time_for_less_than_one_row_gives_the_least_rows(make: type[ExtendBudget]) -> None:
    """A prompt goes on in any case."""
    budget = make(1.001, 512)
    budget.note_decode(1, 1e-4)
    assert set(settled(budget, lambda n: 60.0 * n)) == {MIN_ROWS}


def rows_stay_the_least_before_an_answer_took_a_step(make: type[ExtendBudget]) -> None:
    """What a stream may wait is not known."""
    assert set(settled(make(3, 512), lambda n: n / 1e6)) == {MIN_ROWS}


def a_step_of_fewer_rows_than_it_might_have_lets_the_next_have_no_more(
    make: type[ExtendBudget],
) -> None:
    """It says nothing of more."""
    budget = make(3, 512)
    budget.note_decode(1, 1)
    for _ in range(10):
        budget.note_extend(MIN_ROWS - 1, 1, 0.001)
    assert budget.rows == MIN_ROWS


def a_context_of_twice_the_length_begins_with_half_of_what_is_known_to_fit(
    make: type[ExtendBudget],
) -> None:
    """What a step of a shorter one only promises is not known."""
    budget = make(3, 512)
    budget.note_decode(1, 1)
    for rows in (16, 32, 64):
        assert budget.rows_at(100, 1) == rows
        budget.note_extend(rows, 100, 0.1)
    assert [budget.rows_at(n, 1) for n in (100, 128, 129, 256, 257, 10**6)] == [
        128,
        128,
        32,
        32,
        16,
        16,
    ]
    budget.note_extend(128, 128, 1.9)
    assert [budget.rows_at(n, 1) for n in (128, 129, 257, 513, 1025)] == [128, 64, 32, 16, 16]
    budget.note_extend(64, 200, 1.9)
    assert [budget.rows_at(n, 1) for n in (1, 256, 257)] == [64, 64, 32]


def a_mixed_step_has_the_time_of_the_decode_step_too(make: type[ExtendBudget]) -> None:
    """It is all that a stream waits for."""
    for is_mixed, seconds in ((True, 1.9), (False, 1.3)):
        budget = make(3, 512)
        budget.note_decode(1, 1)
        budget.note_extend(MIN_ROWS, 1, seconds + 0.2, is_mixed=is_mixed)
        assert budget.rows == MIN_ROWS
        budget.note_extend(MIN_ROWS, 1, seconds, is_mixed=is_mixed)
        assert budget.rows == 2 * MIN_ROWS


def another_number_of_answers_begins_again(make: type[ExtendBudget]) -> None:
    """What many wait says nothing of what one may."""
    budget = make(3, 512)
    budget.note_decode(8, 1)
    settled(budget, lambda n: n / 1000)
    assert [budget.rows_at(1, n) for n in (3, 4, 16, 17)] == [MIN_ROWS, 512, 512, MIN_ROWS]
    budget.note_decode(5, 1)
    assert budget.rows == 512
    budget.note_decode(1, 0.01)
    assert settled(budget, lambda n: n / 1000)[-1] == MIN_ROWS


BUDGET_CHECKS: tuple[BudgetCheck, ...] = (
    rows_stay_within_what_a_step_takes,
    time_for_less_than_one_row_gives_the_least_rows,
    rows_stay_the_least_before_an_answer_took_a_step,
    a_step_of_fewer_rows_than_it_might_have_lets_the_next_have_no_more,
    a_context_of_twice_the_length_begins_with_half_of_what_is_known_to_fit,
    a_mixed_step_has_the_time_of_the_decode_step_too,
    another_number_of_answers_begins_again,
)
