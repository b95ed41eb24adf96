"""Writes what requests add to their logits where heads read it. Knows no step."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from lostwax.backends.runtime.driver import Driver
from lostwax.backends.runtime.staging import sendable
from lostwax.ir.contract.biases import bias_row
from lostwax.ir.contract.step_state import Enter


class BiasState:
    """The state `BIASES` in the driver's memory: u8 `buffer`, of rows of `ids` f32 each."""

    def __init__(self, buffer: torch.Tensor, ids: int, driver: Driver) -> None:
        self._rows = buffer.view(torch.float32).view(-1, ids)
        self._driver = driver

    def refusal(self, entering: Iterable[Enter]) -> str:
        """Why they cannot enter, empty where they can: their ids are the model's."""
        most = self._rows.shape[1]
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
        first, early = bias_row(enter.seq), bias_row(enter.seq, is_early=True)
        rows = self._rows[first : early + 1].zero_()
        if enter.bias:
            ids, values = zip(*enter.bias, strict=True)
            added = self._here(np.array(values, np.float32)).expand(len(rows), -1)
            rows.index_copy_(1, self._here(np.array(ids, np.int64)), added)
        if enter.ends:
            ends = self._here(np.array(enter.ends, np.int64))
            self._rows[early].index_fill_(0, ends, float("-inf"))

    def _here(self, values: np.ndarray) -> torch.Tensor:
        """The array in the driver's memory; its copy does not wait."""
        return sendable(values, self._driver).to(self._rows.device, non_blocking=True)
