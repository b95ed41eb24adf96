"""Brings a step's masks to where its head reads them. Knows no step."""

from __future__ import annotations

import torch

from lostwax.backends.runtime.driver import Driver
from lostwax.backends.runtime.mask_gate import Masks
from lostwax.backends.runtime.staging import sendable


class MaskState:
    """The state `MASKS` in the driver's memory: u8 `buffer`, of masks of `words` i32 each."""

    def __init__(self, buffer: torch.Tensor, words: int, driver: Driver) -> None:
        self._rows = buffer.view(torch.int32).view(-1, words)
        self._driver = driver

    def write(self, masks: Masks) -> None:
        """Put i32 [masks, words] at the state's start, behind what was launched: heads of steps
        before still read theirs. Does not wait."""
        host = sendable(masks, self._driver)
        self._rows[: len(masks)].copy_(host, non_blocking=True)
