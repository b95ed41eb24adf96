"""Brings a step's masks to where its head reads them. Knows no step."""

from __future__ import annotations

from lostwax.backends.runtime.driver import Driver
from lostwax.backends.runtime.mask_gate import Masks
from lostwax.backends.runtime.memory import Buffer


class MaskState:
    """The state `MASKS` in the driver's memory: u8 `buffer`."""

    def __init__(self, buffer: Buffer, driver: Driver) -> None:
        self._buffer = buffer
        self._memory = driver.memory

    def write(self, masks: Masks) -> None:
        """Put i32 [masks, words] at the state's start, behind what was launched: heads of steps
        before still read theirs. Does not wait."""
        self._memory.put(self._buffer, masks)
