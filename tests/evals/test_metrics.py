"""Numbers of an evaluation, against brute force and by hand."""

from __future__ import annotations

import itertools
import math

import pytest

from lostwax.evals.metrics import majority, metrics, pass_at_k, standard_error
from lostwax.evals.samples import Sample
from lostwax.evals.task import Answer, Grade


def sample(id_: str, repeat: int, answer: str | None, correct: bool, **more: object) -> Sample:
    reason = "correct" if correct else "wrong_value"
    return Sample(
        id=id_,
        repeat=repeat,
        digest="",
        answer=Answer(content=answer or ""),
        grade=Grade(correct, answer, reason),
        reference=None,
        **more,  # pyright: ignore[reportArgumentType]
    )


def test_pass_at_k_is_the_share_of_all_draws_that_hold_a_right_one() -> None:
    for n in range(1, 8):
        for correct in range(n + 1):
            outcomes = [True] * correct + [False] * (n - correct)
            for k in range(1, n + 1):
                draws = [any(draw) for draw in itertools.combinations(outcomes, k)]
                assert math.isclose(pass_at_k(n, correct, k), sum(draws) / len(draws))


@pytest.mark.parametrize("case", [(4, 1, 5), (4, 5, 1), (4, -1, 1), (4, 1, 0)])
def test_pass_at_k_refuses_what_means_nothing(case: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="means nothing"):
        pass_at_k(*case)


def test_standard_error_by_hand() -> None:
    assert standard_error([1.0]) is None
    # mean 0.5, sample variance 1/3, four values
    assert math.isclose(standard_error([0, 1, 0, 1]) or 0, math.sqrt(1 / 3 / 4))


def test_repeats_of_one_example_are_one_draw() -> None:
    right = [sample("a", r, "1", True) for r in range(4)]
    wrong = [sample("b", r, "2", False) for r in range(4)]
    found = metrics([*right, *wrong], errors=0)
    assert found.accuracy == 0.5
    assert found.standard_error == standard_error([1, 0])
    assert found.pass_at == {1: 0.5, 2: 0.5, 4: 0.5}
    assert found.majority == 0.5


def test_the_majority_decides_and_the_first_of_equals() -> None:
    votes = [("1", False), ("2", True), ("2", True), (None, False), (None, False), (None, False)]
    assert majority([sample("a", r, a, c) for r, (a, c) in enumerate(votes)])
    equals = [("1", False), ("2", True), ("1", False), ("2", True)]
    assert not majority([sample("a", r, a, c) for r, (a, c) in enumerate(equals)])
    assert not majority([sample("a", 0, None, False)])
    # whatever the order in which requests finished
    late = [sample("a", r, a, c) for r, (a, c) in enumerate(equals)]
    assert not majority(late[::-1])


def test_nothing_answered_has_no_accuracy() -> None:
    found = metrics([], errors=3)
    assert (found.accuracy, found.standard_error, found.errors) == (None, None, 3)


def test_whole_texts_are_counted_where_there_is_one() -> None:
    samples = [
        sample("a", 0, "1", True, is_exact=True),
        sample("b", 0, "1", True, is_exact=False),
        sample("c", 0, "1", True),
    ]
    assert metrics(samples, errors=0).exact == 0.5
