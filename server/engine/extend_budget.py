"""How many rows a prefill step may have while answers are under way. Knows seconds, no clock.

A stream waits for a prefill step and the decode step behind it: `max_stall` decode steps' time at
most. The rows that fit are found by doubling and halving: a step of twice the rows takes at most
twice as long.
"""

from __future__ import annotations

MAX_STALL = 3.0
"""Decode steps' time between two tokens of a stream while prompts run, where nobody says else."""
FIRST_ROWS = 16
"""Rows of the first prefill step beside answers: little is known of what one costs."""
SHARE_OF_LAST = 0.25
"""Weight of the last step in what a decode step takes."""


class ExtendBudget:
    """Follows measured steps. `max_stall` counts decode steps, and is above 1; a prefill step has
    one row at least and `most` at most, always a power of two below that."""

    def __init__(self, max_stall: float, most: int) -> None:
        if max_stall <= 1:
            raise ValueError(
                f"max_stall is {max_stall}: nothing fits beside the decode step itself"
            )
        self._allowed = max_stall - 1
        self._most = most
        self._decode_s: float | None = None
        self.rows = _floor_power_of_two(min(FIRST_ROWS, most))

    def note_decode(self, seconds: float) -> None:
        """A decode step took so long."""
        before = seconds if self._decode_s is None else self._decode_s
        self._decode_s = before + SHARE_OF_LAST * (seconds - before)

    def note_extend(self, num_rows: int, seconds: float) -> None:
        """A prefill step of so many rows took so long."""
        if self._decode_s is None:
            return
        allowed = self._allowed * self._decode_s
        if seconds > allowed:
            if num_rows <= 2 * self.rows:
                fits = max(1, int(num_rows * allowed / seconds))
                self.rows = min(self.rows, _floor_power_of_two(fits))
        elif num_rows >= self.rows and 2 * seconds <= allowed:
            self.rows = min(2 * self.rows, _floor_power_of_two(self._most))


def _floor_power_of_two(number: int) -> int:
    return 1 << (number.bit_length() - 1)
