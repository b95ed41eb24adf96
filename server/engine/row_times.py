"""What a row of a prefill step takes where steps pay by their rows. Knows seconds, no clock.

A step takes a decode step's time, and as much for each of its rows as rows of about so long a
context took in the last steps: more is believed at once, less by and by. Rows of a context that was
never seen take as many times as long as it is longer.
"""

from __future__ import annotations

SHORT = 64
"""Tokens: contexts up to this are one."""
SHARE_OF_SHORTER = 0.25
"""Weight of a step whose rows took less than is known: what disturbs a step makes it longer."""
MOST_LONGER = 2.0
"""Times what is known: no step says that a row takes longer than that."""
LEAST_OF_ROWS = 0.5
"""Of a step's time, that its rows take at least: else a step that takes no longer than a decode
step would say that they take none."""


class RowTimes:
    """Seconds a row, above 0, as steps come; contexts are told apart by their powers of two."""

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}
        self._has_begun = False
        self.most_seen = 0
        """Rows of the largest step."""

    def note(
        self, num_rows: int, context: int, seconds: float, decode_s: float, *, is_even: bool = True
    ) -> None:
        """A step of so many rows took so long, and a decode step `decode_s`. The first tells
        nothing, as it takes longer than those that follow; one whose rows do not see about as long
        a context each (`is_even`) says what they take at least."""
        if not self._has_begun:
            self._has_begun = True
            return
        self.most_seen = max(self.most_seen, num_rows)
        at = _class_of(context)
        a_row = max(seconds - decode_s, LEAST_OF_ROWS * seconds) / num_rows
        before = self._seconds.get(at)
        if before is None:
            if is_even:
                self._seconds[at] = a_row
        elif a_row > before:
            self._seconds[at] = min(a_row, MOST_LONGER * before)
        elif is_even:
            self._seconds[at] = before + SHARE_OF_SHORTER * (a_row - before)

    def rows_in(self, seconds: float, context: int) -> float:
        """Rows that take so much longer than a decode step; 0 where none was seen."""
        if not self._seconds:
            return 0.0
        at = _class_of(context)
        shorter = [seen for seen in self._seconds if seen <= at]
        seen = max(shorter) if shorter else min(self._seconds)
        return seconds / (self._seconds[seen] * max(at / seen, 1.0))


def _class_of(context: int) -> int:
    return max(SHORT, 1 << (context - 1).bit_length())
