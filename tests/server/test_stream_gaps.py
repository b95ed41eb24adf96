"""Who stands still for long is told from who answers, however many short gaps lie between."""

from __future__ import annotations

import pytest
from stream_gaps import Waits, require_alike


def _waits(*of: tuple[int, float], idle_s: float = 0.0) -> Waits:
    """So many gaps of so many seconds, and a time in which nobody streams."""
    gaps = sorted(gap for count, gap in of for _ in range(count))
    return Waits(gaps, sum(gaps) + idle_s)


BEFORE = _waits((2900, 0.006), (95, 0.012), (5, 0.05))


@pytest.mark.parametrize(
    "beside",
    [
        BEFORE,
        _waits((2000, 0.011), (100, 0.017)),
        _waits((5, 0.006)),
        _waits((3000, 0.01), (1, 0.9)),
    ],
)
def test_streams_may_be_slower(beside: Waits) -> None:
    require_alike(BEFORE, beside)


@pytest.mark.parametrize(
    ("beside", "told"),
    [
        (_waits((3000, 0.006), (117, 2.0)), "of the time before, 92.9%"),
        (_waits((3000, 0.006), (300, 0.019)), "of the time before, 24.1%"),
        (_waits((3000, 0.019)), "of the time before, 100.0%"),
        (_waits((3000, 0.006), idle_s=60), "parts a second: .* before, 38.5 beside"),
        (_waits((9000, 0.006), (1, 1.1)), "the longest gap: 0.05 s before, 1.10 s beside"),
    ],
)
def test_streams_that_stand_still_are_told(beside: Waits, told: str) -> None:
    with pytest.raises(AssertionError, match=told):
        require_alike(BEFORE, beside)
