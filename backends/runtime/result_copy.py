"""Brings a program's outputs to the host, as lists. Knows no step and no order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lostwax.backends.runtime.driver import Driver
from lostwax.backends.runtime.memory import Array, Place

ReadRows = Callable[[], dict[str, Any]]
"""Gives lists of results by name, an entry a row."""


class ResultCopy:
    """One program's outputs: places [rows or more, ...] in the driver's memory."""

    def __init__(self, outputs: Mapping[str, Place], rows: int, driver: Driver) -> None:
        self._arrays: dict[str, Array] = {}
        self._packed: Any = None
        if driver.memory.is_host:
            self._arrays = {name: driver.memory.array_at(each) for name, each in outputs.items()}
        else:
            # Imported here: it is torch's, which no process needs that computes on the host alone.
            from lostwax.backends.runtime.packed_results import PackedResults

            self._packed = PackedResults(outputs, rows, driver)

    def start(self, rows: int) -> ReadRows:
        """Enqueue the copy of the first `rows` rows; the function reads them as lists, by name.

        It may be called once a mark made behind this has passed.
        """
        if self._packed is not None:
            return self._packed.start(rows)
        found = {name: array[:rows].tolist() for name, array in self._arrays.items()}
        return lambda: found  # read at once: what runs next writes over it
