"""How many rows a prefill step may have while answers are under way. Knows seconds, no clock.

A stream waits for a prefill step and the decode step behind it, or for a prefill step in which its
own row runs, too: for `max_stall` decode steps' time. A step has the most rows
that are foretold to fit; what steps really take is learnt from each (`step_times.py`).
So rows begin small; what turned out to take too long is not
tried again for a while. While nobody waits (`explores`) twice the rows of a known step are tried if
what is known does not rule them out: where small steps take most of their time whatever their rows,
nothing would foretell that more of them fit.

Where a step pays by its rows, whatever program runs it (`by_row`: a host's kernels stop behind the
last), what a row takes is all that is learnt (`row_times.py`), and rows are any number. Such steps
vary more, as others use the host, too: they aim at less than the bound.

What a decode step takes is that of the last ones. Where the number of answers has doubled or halved
since, it is not known: prefill steps have the least rows until one has run.
"""

from __future__ import annotations

from lostwax.server.engine.row_times import RowTimes
from lostwax.server.engine.step_times import StepTimes

MAX_STALL = 4.0
"""Decode steps' time between two tokens of a stream while prompts run, where nobody says else."""
MIN_ROWS = 16
"""Rows that a prefill step may have in any case: with fewer it hardly takes less."""
MIN_ROWS_BY_ROW = 4
"""The same where steps pay by their rows."""
AIM_BY_ROW = 0.8
"""Of the bound, where they do."""
SHARE_OF_LAST = 0.25
SHARE_OF_LONGER = 1 / 16
"""Weight of the last step in what a decode step takes; of one that took longer less, as what
disturbs a step makes it longer, never shorter, and a stream's usual wait is the undisturbed."""
SHARE_OF_LONGER_BESIDE = 1 / 64
"""The same of one between a prompt's steps, which leave the prompt's in caches."""


class ExtendBudget:
    """Follows measured steps. `max_stall` counts decode steps, and is above 1; a step has `most`
    rows at most."""

    def __init__(self, max_stall: float, most: int, *, by_row: bool = False) -> None:
        if max_stall <= 1:
            raise ValueError(
                f"max_stall is {max_stall}: nothing fits beside the decode step itself"
            )
        self._max_stall = max_stall
        self._most = _floor_power_of_two(most)
        self._begun: set[int] = set()
        """Numbers of answers, by their powers of two, of which a decode step has run."""
        self._decode_s = 0.0
        self._num_answers = 0
        """Of the last decode step."""
        self._times = StepTimes()
        self._row_times = RowTimes() if by_row else None
        self._found: dict[tuple[int, bool], int] = {}
        """What was asked since a step was noted: many prompts ask the same."""
        self.explores = False
        """Whether nobody minds a step that takes too long."""

    def knows_decode(self, num_answers: int) -> bool:
        """Whether a decode step of about so many answers was measured last."""
        return num_answers <= 2 * self._num_answers and self._num_answers <= 2 * num_answers

    def rows_at(self, context: int, num_answers: int, *, is_mixed: bool) -> int:
        """Rows of a step for which so many answers wait, and behind which its longest request has
        `context` tokens: a power of two but by row. `is_mixed`: the answers have a row each among
        them."""
        least = min(MIN_ROWS if self._row_times is None else MIN_ROWS_BY_ROW, self._most)
        if not self.knows_decode(num_answers):
            return least
        asked = (context, is_mixed)
        if asked not in self._found:
            self._found[asked] = self._most_at(context, least, is_mixed=is_mixed)
        return self._found[asked]

    def _most_at(self, context: int, least: int, *, is_mixed: bool) -> int:
        if self._row_times is not None:
            steps = 1 if is_mixed else 2  # a decode step's time is in each, and in one behind it
            beside = max(AIM_BY_ROW * self._max_stall - steps, 0.0)
            fit = self._row_times.rows_in(beside * self._decode_s, context)
            return int(max(min(fit, self._most, 2 * self._row_times.most_seen), least))
        allowed = (self._max_stall - (not is_mixed)) * self._decode_s
        rows = self._most
        while rows > least and not self._fits(rows, context, allowed):
            rows //= 2
        return rows

    def _fits(self, rows: int, context: int, allowed: float) -> bool:
        if self.explores:
            is_next = self._times.has_seen(rows) or self._times.has_seen(rows // 2)
            return is_next and self._times.at_least(rows, context, allowed) <= allowed
        return self._times.foretell(rows, context, allowed) <= allowed

    def note_decode(self, num_answers: int, seconds: float, *, is_beside: bool = False) -> None:
        """A decode step took so long, beside a prompt or not. The first of about so many answers
        takes longer than those that follow, and any may once: it counts as twice what they take at
        most."""
        self._found.clear()
        kind = num_answers.bit_length()
        if kind not in self._begun:
            self._begun.add(kind)
            return
        if not self.knows_decode(num_answers):
            self._decode_s = seconds
        self._num_answers = num_answers
        longer = SHARE_OF_LONGER_BESIDE if is_beside else SHARE_OF_LONGER
        share = SHARE_OF_LAST if seconds < self._decode_s else longer
        self._decode_s += share * (min(seconds, 2 * self._decode_s) - self._decode_s)

    def note_extend(
        self, num_rows: int, context: int, seconds: float, *, is_even: bool = True
    ) -> None:
        """A prefill step of so many rows took so long; behind it the longest of its requests has
        `context` tokens. `is_even`: most of its rows see about as many."""
        self._found.clear()
        if self._row_times is not None:
            self._row_times.note(num_rows, context, seconds, self._decode_s, is_even=is_even)
            return
        self._times.note(num_rows, context, seconds, is_even=is_even)


def _floor_power_of_two(number: int) -> int:
    return 1 << (number.bit_length() - 1)
