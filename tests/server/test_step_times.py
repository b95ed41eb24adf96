"""What prefill steps take, seen and foretold: by made-up seconds."""

from __future__ import annotations

from math import inf

import pytest

from lostwax.server.engine.step_times import STALE, StepTimes

Seen = tuple[int, int, float]
"""Rows, context, seconds."""


def _times(*seen: Seen) -> StepTimes:
    times = StepTimes()
    for step in seen:
        for _ in range(2):
            times.note(*step)
    return times


@pytest.mark.parametrize(
    ("seen", "rows", "context", "seconds"),
    [
        ([], 64, 64, inf),
        ([(64, 256, 1.0)], 64, 200, 1.0),  # between 128 and 256
        ([(64, 256, 1.0)], 64, 128, 1.0),  # no longer in a shorter context, and not less, either
        ([(64, 256, 1.0)], 32, 256, 1.0),
        ([(64, 256, 1.0)], 128, 256, 2.0),
        ([(64, 256, 1.0)], 256, 256, 4.0),
        ([(64, 256, 1.0)], 64, 1024, 4.0),
        ([(64, 256, 1.0)], 128, 512, 4.0),
        ([(32, 256, 0.8), (64, 256, 1.0)], 128, 256, 2.0),  # twice the rows
        ([(32, 256, 0.4), (64, 256, 1.0)], 128, 256, 1.6),  # four times what 32 took
        ([(32, 256, 0.1), (64, 256, 1.0)], 128, 256, 1.0),  # but no less than 64 did
        ([(32, 256, 2.5), (64, 256, 1.0)], 128, 256, 2.5),  # noise
        ([(64, 256, 1.0), (32, 256, 0.8), (32, 512, 0.9)], 64, 512, 1.125),
        ([(64, 256, 1.0), (32, 256, 0.8), (32, 512, 0.7)], 64, 512, 1.0),
        # the size that grew most, from the longest context before
        (
            [(64, 256, 1.0), (32, 256, 0.8), (32, 512, 0.9), (128, 128, 2.0), (128, 512, 2.5)],
            64, 512, 1.25,
        ),
        ([(64, 256, 1.0), (128, 64, 1.2), (128, 4096, 1.8)], 64, 4096, 1.5),
        ([(64, 256, 1.0), (16, 256, 0.5), (16, 512, 0.5)], 64, 512, 2.0),  # too few rows to say
        ([(64, 256, 4.0), (16, 256, 0.5)], 128, 256, 4.0),  # eight times what 16 took
    ],
)  # fmt: skip
def test_what_a_step_is_foretold_to_take(
    seen: list[Seen], rows: int, context: int, seconds: float
) -> None:
    assert _times(*seen).foretell(rows, context, 10.0) == pytest.approx(seconds)


def test_steps_like_it_count_by_halves() -> None:
    times = _times((64, 256, 1.0))
    times.note(64, 256, 2.0)
    assert times.foretell(64, 256, 10.0) == 1.5


def test_the_first_of_its_kind_tells_nothing() -> None:
    times = StepTimes()
    times.note(64, 256, 1.0)
    assert times.foretell(64, 256, 10.0) == inf


def test_what_took_too_long_is_forgotten_after_a_while_and_what_did_not_never() -> None:
    times = _times((32, 256, 1.0), (64, 256, 5.0))
    for number in range(2 * STALE):
        is_believed = number < STALE
        assert times.foretell(64, 256, 4.0) == (5.0 if is_believed else 2.0)
        assert times.foretell(64, 256, 6.0) == 5.0
        times.note(16, 64, 1.0)
    times.note(64, 256, 3.0)
    assert times.foretell(64, 256, 4.0) == 3.0, "what it took long ago counts nothing"


def test_what_smaller_steps_took_is_the_least() -> None:
    times = _times((32, 256, 1.0), (16, 64, 1.2), (64, 512, 2.0))
    assert times.at_least(64, 256, 9.0) == 1.2
    assert times.at_least(128, 256, 9.0) == 1.0, "16 rows are too few to say"
    assert times.at_least(64, 512, 9.0) == 2.0
    assert times.at_least(8, 64, 9.0) == 0.0
    assert [times.has_seen(rows) for rows in (8, 16, 32, 64)] == [False, True, True, True]
