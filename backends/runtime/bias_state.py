"""Writes what requests add to their logits where heads read it. Knows no step."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from lostwax.backends.runtime.driver import Driver
from lostwax.backends.runtime.memory import Buffer
from lostwax.ir.contract.biases import bias_row
from lostwax.ir.contract.step_state import Enter


class BiasState:
    """The state `BIASES` in the driver's memory: u8 `buffer`, of rows of `ids` f32 each."""

    def __init__(self, buffer: Buffer, ids: int, driver: Driver) -> None:
        self._buffer = buffer
        self._ids = ids
        self._memory = driver.memory

    def refusal(self, entering: Iterable[Enter]) -> str:
        """Why they cannot enter, empty where they can: their ids are the model's."""
        most = self._ids
        for enter in entering:
            named = [*(token for token, _ in enter.bias), *enter.ends]
            if named and not 0 <= min(named) <= max(named) < most:
                return f"sequence {enter.seq} has a bias for ids outside 0..{most - 1}"
        return ""

    def enter(self, entering: Iterable[Enter]) -> None:
        """Write the rows of those that bring a bias, behind what was launched. Does not wait."""
        for enter in entering:
            if enter.biased:
                self._write(enter)

    def _write(self, enter: Enter) -> None:
        """One copy of both rows, the early one behind the other."""
        first, early = bias_row(enter.seq), bias_row(enter.seq, is_early=True)
        rows = np.zeros((early + 1 - first, self._ids), np.float32)
        for token, value in enter.bias:
            rows[:, token] = value
        rows[-1, list(enter.ends)] = -np.inf
        self._memory.put(self._buffer, rows, first * rows[0].nbytes)
