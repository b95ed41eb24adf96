"""How many rows a prefill step may have while answers are under way. Knows seconds, no clock.

A stream waits for a prefill step and the decode step behind it, or for a prefill step in which its
own row runs, too: for `max_stall` decode steps' time. A step has the most rows, by doubling from
the least, that are foretold to fit; what steps really take is learnt from each (`step_times.py`).
So rows begin small; what turned out to take too long is not
tried again for a while.

What a decode step takes is that of the last ones. Where the number of answers has doubled or halved
since, it is not known: prefill steps have the least rows until one has run.
"""

from __future__ import annotations

from lostwax.server.engine.step_times import StepTimes

MAX_STALL = 4.0
"""Decode steps' time between two tokens of a stream while prompts run, where nobody says else."""
MIN_ROWS = 16
"""Rows that a prefill step may have in any case: with fewer it hardly takes less."""
SHARE_OF_LAST = 0.25
"""Weight of the last step in what a decode step takes."""


class ExtendBudget:
    """Follows measured steps. `max_stall` counts decode steps, and is above 1; a step has `most`
    rows at most."""

    def __init__(self, max_stall: float, most: int) -> None:
        if max_stall <= 1:
            raise ValueError(
                f"max_stall is {max_stall}: nothing fits beside the decode step itself"
            )
        self._max_stall = max_stall
        self._most = _floor_power_of_two(most)
        self._decode_s = 0.0
        self._num_answers = 0
        """Of the last decode step."""
        self._times = StepTimes()

    def knows_decode(self, num_answers: int) -> bool:
        """Whether a decode step of about so many answers was measured last."""
        return num_answers <= 2 * self._num_answers and self._num_answers <= 2 * num_answers

    def rows_at(self, context: int, num_answers: int, *, is_mixed: bool) -> int:
        """Rows of a step for which so many answers wait, and behind which its longest request has
        `context` tokens: a power of two. `is_mixed`: the answers have a row each among them."""
        rows = min(MIN_ROWS, self._most)
        if not self.knows_decode(num_answers):
            return rows
        allowed = (self._max_stall - (not is_mixed)) * self._decode_s
        while 2 * rows <= self._most:
            if self._times.foretell(2 * rows, context, allowed) > allowed:
                break
            rows *= 2
        return rows

    def note_decode(self, num_answers: int, seconds: float) -> None:
        """A decode step took so long."""
        if not self.knows_decode(num_answers):
            self._decode_s = seconds
        self._num_answers = num_answers
        self._decode_s += SHARE_OF_LAST * (seconds - self._decode_s)

    def note_extend(self, num_rows: int, context: int, seconds: float) -> None:
        """A prefill step of so many rows took so long; behind it the longest of its requests has
        `context` tokens."""
        self._times.note(num_rows, context, seconds)


def _floor_power_of_two(number: int) -> int:
    return 1 << (number.bit_length() - 1)
