"""Writes what the host knows of sequences into their state on the device, by one copy a step.

The state's fields lie one behind the other in one buffer of 4-byte numbers: whatever a step brings
is a list of places and of what stands there, which travels together. A copy for each of the fields
takes most of a millisecond of the host. Knows no plan.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from lostwax.backends.runtime.driver import Driver
from lostwax.backends.runtime.memory import Buffer
from lostwax.ir.contract.step_layout import StepLayout
from lostwax.ir.contract.step_state import STEP_STATE

_WORD = 4
"""Bytes of a number of the state."""


class SequenceWriter:
    """Gathers what is to be written to u8 `buffer`, the state `SEQUENCES`, and sends it."""

    def __init__(self, layout: StepLayout, buffer: Buffer, driver: Driver) -> None:
        self._buffer = buffer
        self._memory = driver.memory
        firsts, widths, at = list[Any](), list[Any](), 0
        self._columns: dict[str, slice] = {}
        for name in STEP_STATE:
            view = layout.field(name)
            width = prod(view.shape[1:])
            firsts.append(view.offset // _WORD + np.arange(width))
            widths.append(np.full(width, width))
            self._columns[name] = slice(at, at + width)
            at += width
        self._firsts, self._widths = np.concatenate(firsts), np.concatenate(widths)
        """Of each number of a row: where that of row 0 stands, and how far behind it the next."""
        self._places: list[Any] = []
        self._values: list[Any] = []

    def rows(self, seqs: Any, fields: dict[str, Any]) -> None:
        """Whole rows: i64 [n] sequences, and of each field the 4-byte numbers of all rows."""
        found = np.empty((len(seqs), len(self._firsts)), np.int32)
        for name, columns in self._columns.items():
            found[:, columns] = fields[name][seqs].view(np.int32).reshape(len(seqs), -1)
        self._places.append((self._firsts + seqs[:, None] * self._widths).reshape(-1))
        self._values.append(found.reshape(-1))

    def pages(self, seqs: Any, numbers: Any, pages: Any) -> None:
        """Single pages: i64 [n] each, the sequence, the page's place in its list, and the page."""
        at = self._columns["pages"].start
        self._places.append(self._firsts[at] + seqs * self._widths[at] + numbers)
        self._values.append(pages.astype(np.int32))

    def send(self) -> None:
        """Write all of it behind what was launched. Does not wait."""
        if not self._places:
            return
        places, values = np.concatenate(self._places), np.concatenate(self._values)
        self._places.clear()
        self._values.clear()
        self._memory.set_words(self._buffer, places, values)
