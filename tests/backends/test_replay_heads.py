"""A head that takes fewer rows than a step asks for is replayed over all of them, each once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from lostwax.backends.runtime.driver import Passed
from lostwax.backends.runtime.replay_step import StepReplay

ROWS = 2
"""Of the head's bucket."""


class _Head:
    """Gives each row's own number as its id."""

    def __init__(self) -> None:
        self.program = SimpleNamespace(bucket=SimpleNamespace(rows=ROWS))
        self.step = self.results = self
        self._rows = slice(0)
        self._ran: list[int] = []

    def fill(self, inputs: Any, rows: slice) -> None:
        self._rows = rows

    def replay(self) -> None:
        self._ran = list(range(self._rows.start, self._rows.stop))

    def start(self, rows: int) -> Any:
        ran = self._ran[:rows]
        return lambda: {"ids": ran, "logprobs": [-float(row) for row in ran]}


@pytest.mark.parametrize("count", [0, 1, ROWS, ROWS + 1, 3 * ROWS])
def test_every_row_that_is_asked_for_gets_its_own_results(count: int) -> None:
    driver: Any = SimpleNamespace(mark=Passed)
    nobody: Any = None
    replay = StepReplay(driver, nobody, nobody)
    stage: Any = (None, _Head())
    found = replay._heads(stage, nobody, count)  # pyright: ignore[reportPrivateUsage]
    wanted = list(range(count))
    assert found == ({"ids": wanted, "logprobs": [-float(n) for n in wanted]} if count else {})
