"""How many rows a prefill step may have while answers are under way. Knows seconds, no clock.

A stream waits for a prefill step and the decode step behind it: `max_stall` decode steps' time.
The rows that fit are found by doubling and halving. A step that leaves a quarter of its time is
doubled: the next takes at most twice as long, half more than it should, and is then not tried for a
while.
"""

from __future__ import annotations

MAX_STALL = 3.0
"""Decode steps' time between two tokens of a stream while prompts run, where nobody says else."""
MIN_ROWS = 16
"""Rows that a prefill step may have in any case: with fewer it hardly takes less."""
LEFT = 0.25
"""Share of its time that a step leaves before the next has more rows."""
HELD = 32
"""Prefill steps for which rows do not grow again behind one that took too long."""
SHARE_OF_LAST = 0.25
"""Weight of the last step in what a decode step takes."""


class ExtendBudget:
    """Follows measured steps. `max_stall` counts decode steps, and is above 1; `rows` is a power of
    two, `most` at most."""

    def __init__(self, max_stall: float, most: int) -> None:
        if max_stall <= 1:
            raise ValueError(
                f"max_stall is {max_stall}: nothing fits beside the decode step itself"
            )
        self._allowed = max_stall - 1
        self._most = _floor_power_of_two(most)
        self._decode_s: float | None = None
        self._held = 0
        self.rows = min(MIN_ROWS, self._most)

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
            # A step of far fewer rows was late for another reason; one of more, as nobody decoded.
            if self.rows <= 2 * num_rows and num_rows <= self.rows:
                fits = _floor_power_of_two(max(1, int(num_rows * allowed / seconds)))
                self.rows = min(self._most, max(MIN_ROWS, fits))
                self._held = HELD
        elif self._held:
            self._held -= 1
        elif num_rows >= self.rows and seconds <= (1 - LEFT) * allowed:
            self.rows = min(2 * self.rows, self._most)


def _floor_power_of_two(number: int) -> int:
    return 1 << (number.bit_length() - 1)
