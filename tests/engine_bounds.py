"""What bounds a look at the queue, and a prefill step's rows, at sizes that are seldom met.

A check raises AssertionError where what it is given keeps another bound.
"""

from __future__ import annotations

from collections.abc import Callable

from lostwax.server.engine.extend_budget import MIN_ROWS, MIN_ROWS_BY_ROW, ExtendBudget
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


def decoded(budget: ExtendBudget, num_answers: int, seconds: float) -> None:
    """Decode steps took so long: the first tells nothing."""
    for _ in range(2):
        budget.note_decode(num_answers, seconds)


def settled(budget: ExtendBudget, cost: Callable[[int], float], steps: int = 40) -> list[int]:
    """The rows of so many steps of short contexts beside one answer, each as large as it may be."""
    rows: list[int] = []
    for _ in range(steps):
        rows.append(budget.rows_at(1, 1, is_mixed=False))
        budget.note_extend(rows[-1], 1, cost(rows[-1]))
    return rows


def rows_stay_within_what_a_step_takes(make: type[ExtendBudget]) -> None:
    """Whatever that is, a single row, or no power of two."""
    for most, rows in ((1, 1), (2, 2), (15, 8), (16, 16), (17, 16), (100, 64), (511, 256)):
        budget = make(3, most)
        assert budget.rows_at(1, 1, is_mixed=False) == min(MIN_ROWS, rows)
        decoded(budget, 1, 1)
        assert settled(budget, lambda n: n / 1e6, 20)[-1] == rows
        budget = make(3, most)
        decoded(budget, 1, 1)
        assert settled(budget, lambda n: 5.0 * n)[-1] == min(MIN_ROWS, rows)


def time_for_less_than_one_row_gives_the_least_rows(make: type[ExtendBudget]) -> None:
    """A prompt goes on in any case."""
    budget = make(1.001, 512)
    decoded(budget, 1, 1e-4)
    assert set(settled(budget, lambda n: 60.0 * n)) == {MIN_ROWS}


def rows_stay_the_least_before_an_answer_took_a_step(make: type[ExtendBudget]) -> None:
    """What a stream may wait is not known."""
    assert set(settled(make(3, 512), lambda n: n / 1e6)) == {MIN_ROWS}


def a_longer_context_begins_with_what_fits_though_a_step_took_as_many_times_as_long(
    make: type[ExtendBudget],
) -> None:
    """Until its steps tell how much longer they take."""
    budget = make(3, 512)
    decoded(budget, 1, 1)

    def rows(context: int) -> int:
        return budget.rows_at(context, 1, is_mixed=False)

    for _ in range(2):
        budget.note_extend(128, 200, 0.5)
    assert [rows(n) for n in (256, 257, 512, 513, 10**6)] == [512, 256, 256, 128, MIN_ROWS]
    for _ in range(2):
        budget.note_extend(128, 500, 0.55)
    assert [rows(n) for n in (512, 513, 1025)] == [256, 128, MIN_ROWS], "not four times 0.55"


def what_steps_took_before_tells_how_much_longer_they_take(make: type[ExtendBudget]) -> None:
    """In twice the context."""
    budget = make(3, 256)
    decoded(budget, 1, 1)
    for rows, context, seconds in ((128, 256, 1.1), (128, 512, 1.2)):
        for _ in range(2):
            budget.note_extend(rows, context, seconds)
    assert budget.rows_at(512, 1, is_mixed=False) == 128, "twice 1.2 are too many"
    for _ in range(2):
        budget.note_extend(256, 256, 1.1)
    assert budget.rows_at(512, 1, is_mixed=False) == 256


def a_mixed_step_has_the_time_of_the_decode_step_too(make: type[ExtendBudget]) -> None:
    """It is all that a stream waits for."""
    for is_mixed, seconds in ((True, 1.4), (False, 0.9)):
        for late, rows in ((0.2, MIN_ROWS), (0, 2 * MIN_ROWS)):
            budget = make(3, 512)
            decoded(budget, 1, 1)
            for _ in range(2):
                budget.note_extend(MIN_ROWS, 1, seconds + late)
            assert budget.rows_at(1, 1, is_mixed=is_mixed) == rows


def another_number_of_answers_is_to_be_measured(make: type[ExtendBudget]) -> None:
    """What many wait says nothing of what one may. What a prefill step takes is known still."""
    budget = make(3, 512)
    decoded(budget, 1, 1)
    settled(budget, lambda n: n / 1000)
    decoded(budget, 8, 1)

    def rows(num_answers: int) -> int:
        return budget.rows_at(1, num_answers, is_mixed=False)

    assert [rows(n) for n in (3, 4, 16, 17)] == [MIN_ROWS, 512, 512, MIN_ROWS]
    decoded(budget, 5, 1)
    assert rows(5) == 512
    decoded(budget, 1, 0.1)
    assert rows(1) == 128


def rows_are_any_number_where_a_step_pays_by_its_rows(make: type[ExtendBudget]) -> None:
    """As many as take what the bound leaves beside a decode step, or two, less what may vary."""
    budget = make(5, 512, by_row=True)
    decoded(budget, 1, 1)

    def rows(context: int = 1, *, is_mixed: bool = True) -> int:
        return budget.rows_at(context, 1, is_mixed=is_mixed)

    def took(num_rows: int, seconds: float, *, is_even: bool = True) -> None:
        budget.note_extend(num_rows, 1, seconds, is_even=is_even)

    took(40, 100)
    assert rows() == MIN_ROWS_BY_ROW, "the first takes longer than those that follow"
    took(40, 2)
    assert rows() == 80, "no more than twice what was seen"
    took(80, 3)
    assert (rows(), rows(is_mixed=False), rows(100), rows(256)) == (120, 80, 60, 30)
    took(80, 2, is_even=False)
    assert rows() == 120
    took(80, 2)  # a half of it for the rows: a fourth of the step counts
    assert rows() == 137
    took(80, 3, is_even=False)
    assert rows() == 120
    took(8, 1)  # no longer than a decode step: half of it is the rows'
    assert rows() == 60
    for _ in range(12):
        took(64, 200)
    assert rows() == MIN_ROWS_BY_ROW


BUDGET_CHECKS: tuple[BudgetCheck, ...] = (
    rows_stay_within_what_a_step_takes,
    time_for_less_than_one_row_gives_the_least_rows,
    rows_stay_the_least_before_an_answer_took_a_step,
    a_longer_context_begins_with_what_fits_though_a_step_took_as_many_times_as_long,
    what_steps_took_before_tells_how_much_longer_they_take,
    a_mixed_step_has_the_time_of_the_decode_step_too,
    another_number_of_answers_is_to_be_measured,
    rows_are_any_number_where_a_step_pays_by_its_rows,
)
