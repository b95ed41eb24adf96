"""How many rows a prefill step may have while answers are under way. Knows seconds, no clock.

A stream waits for a prefill step and the decode step behind it, or for a prefill step in which its
own row runs, too: `max_stall` decode steps' time. The rows that fit are found by doubling and
halving. A step that leaves a third of its time is doubled: the next takes at most twice as long, a
third more than it should; as many rows are then not tried for a while, fewer are at once. So a
stall of 3 is never above 4 but where a step takes longer than it usually does.

Steps take longer in longer contexts, and where these begin to be selected from they do so at once.
So whenever the longest context has doubled, the rows begin with half of what is known to fit. Where
the number of answers has doubled or halved since a decode step was measured, all begins again.
"""

from __future__ import annotations

MAX_STALL = 3.0
"""Decode steps' time between two tokens of a stream while prompts run, where nobody says else."""
MIN_ROWS = 16
"""Rows that a prefill step may have in any case: with fewer it hardly takes less."""
LEFT = 1 / 3
"""Share of its time that a step leaves before the next has more rows."""
HELD = 32
"""Prefill steps behind one that took too long in which as many rows are not tried again."""
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
        self._max_stall = max_stall
        self._most = _floor_power_of_two(most)
        self._decode_s: float | None = None
        self._num_answers = 0
        """Of the last decode step."""
        self._held, self._late_rows = 0, 0
        """Steps for which so many rows are not tried."""
        self.rows = min(MIN_ROWS, self._most)
        """What may be run while no context is above `_context`."""
        self._is_tried = True
        """Whether as many rows have run and fit, or there are never fewer."""
        self._context = 1
        """A power of two."""

    def knows_decode(self, num_answers: int) -> bool:
        """Whether a decode step of about so many answers was measured last."""
        return num_answers <= 2 * self._num_answers and self._num_answers <= 2 * num_answers

    def rows_at(self, context: int, num_answers: int) -> int:
        """Rows of a step for which so many answers wait, and behind which its longest request has
        `context` tokens."""
        if not self.knows_decode(num_answers):
            return min(MIN_ROWS, self._most)
        if context <= self._context or self.rows <= MIN_ROWS:
            return self.rows
        known = self.rows if self._is_tried else self.rows // 2
        num_doubled = _ceil_power_of_two(context).bit_length() - self._context.bit_length()
        return max(MIN_ROWS, known >> num_doubled)

    def note_decode(self, num_answers: int, seconds: float) -> None:
        """A decode step took so long."""
        if self._decode_s is None or not self.knows_decode(num_answers):
            self._decode_s = seconds
            self.rows, self._is_tried, self._held = min(MIN_ROWS, self._most), True, 0
        self._num_answers = num_answers
        self._decode_s += SHARE_OF_LAST * (seconds - self._decode_s)

    def note_extend(
        self, num_rows: int, context: int, seconds: float, *, is_mixed: bool = False
    ) -> None:
        """A prefill step of so many rows took so long; behind it the longest of its requests has
        `context` tokens. `is_mixed`: the answers under way had a row each among them."""
        if self._decode_s is None:
            return
        if context > self._context:
            self.rows = self.rows_at(context, self._num_answers)
            self._context, self._is_tried = _ceil_power_of_two(context), True
        allowed = (self._max_stall - (not is_mixed)) * self._decode_s
        if seconds > allowed:
            # A step of far fewer rows was late for another reason; one of more, as nobody decoded.
            if self.rows <= 2 * num_rows and num_rows <= self.rows:
                fits = _floor_power_of_two(max(1, int(num_rows * allowed / seconds)))
                self.rows = min(self._most, max(MIN_ROWS, fits))
                self._held, self._late_rows = HELD, num_rows
                self._is_tried = True
            return
        self._is_tried = self._is_tried or num_rows >= self.rows
        may_grow = not self._held or 2 * self.rows < self._late_rows
        self._held = max(0, self._held - 1)
        if may_grow and num_rows >= self.rows < self._most and seconds <= (1 - LEFT) * allowed:
            self.rows, self._context = 2 * self.rows, _ceil_power_of_two(context)
            self._is_tried = False


def _floor_power_of_two(number: int) -> int:
    return 1 << (number.bit_length() - 1)


def _ceil_power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()
