"""Keeps what requests have said where heads read it. Knows no step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from lostwax.backends.runtime.driver import Driver
from lostwax.backends.runtime.memory import Buffer
from lostwax.ir.contract.counts import IN_PROMPT, OUTPUT
from lostwax.ir.contract.step_state import Enter


class CountState:
    """The state `COUNTS` in the driver's memory: u8 `buffer`, of rows of `ids` i32 each."""

    def __init__(self, buffer: Buffer, ids: int, driver: Driver) -> None:
        self._buffer = buffer
        self._ids = ids
        self._memory = driver.memory

    def enter(self, entering: Iterable[Enter]) -> None:
        """Write the rows of those with penalties, behind what was launched. Does not wait."""
        for enter in entering:
            if enter.counted:
                self._write(enter)

    def _write(self, enter: Enter) -> None:
        """One copy of a whole row: no tokens are sorted, however long the prompt."""
        row = np.zeros(self._ids, np.int32)
        row[np.array(enter.prompt, np.int64)] = IN_PROMPT
        np.add.at(row, np.array(enter.outputs, np.int64), OUTPUT)
        self._memory.put(self._buffer, row, enter.seq * row.nbytes)

    def add(self, seqs: Any, ids: Any) -> None:
        """Count outputs, i32 [n] each; of one sequence there may be several, and equal ones."""
        places = seqs.astype(np.int64) * self._ids + ids
        self._memory.add_words(self._buffer, places, OUTPUT)
