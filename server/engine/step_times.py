"""What prefill steps took, and what another would take. Knows seconds, no clock and no bound.

Steps are told apart by their rows and their longest context, both as powers of two. One that was
never seen is foretold from the others: at most, it takes as many times as long as it has times
their rows and their context, and no longer than one that has more of both. Of shorter contexts more
may be known: how much longer steps of half the rows or more took here than there. Of fewer rows it
says nothing that they grew by less: the next size may be another program, which takes far longer.
"""

from __future__ import annotations

from math import inf

SHORT = 64
"""Tokens: contexts up to this are one."""
STALE = 32
"""Prefill steps behind one that took too long, in which that is believed; then it may run again."""

FAR = 4
"""Times the rows: what so much smaller steps took says nothing of the least that a step takes.
Those of a few rows often begin when nothing runs: what the host does first counts with them."""

_Step = tuple[int, int]
"""Rows and context, powers of two."""


class StepTimes:
    """Seconds of prefill steps, as they come."""

    def __init__(self) -> None:
        self._begun: set[_Step] = set()
        self._seconds: dict[_Step, float] = {}
        self._noted_at: dict[_Step, int] = {}
        self._num_noted = 0

    def note(self, num_rows: int, context: int, seconds: float, *, is_even: bool = True) -> None:
        """A step took so long; what one like it took before counts half. The first of its kind
        tells nothing, as it takes longer than those that follow.

        One whose rows are far from a power of two, or do not see about as long a context each
        (`is_even`), tells no more than what others take at least.
        """
        rows = _ceil_power_of_two(num_rows)
        step = (rows, _class_of(context))
        self._num_noted += 1
        if step not in self._begun:
            self._begun.add(step)
            return
        before = self._seconds.get(step)
        if not is_even or 4 * num_rows <= 3 * rows:
            if before is None and is_even:
                before = seconds = seconds * rows / num_rows
            elif before is None or seconds < before:
                return
            before = seconds
        if before is None or self._is_old(step):
            before = seconds
        self._seconds[step] = (before + seconds) / 2
        self._noted_at[step] = self._num_noted

    def has_seen(self, rows: int) -> bool:
        """Whether what so many rows take is known, in any context."""
        return any([at == rows for at, _ in self._seconds])

    def at_least(self, rows: int, context: int, allowed: float) -> float:
        """The most seconds that steps of as many rows or somewhat fewer took, in as long a context
        or a shorter one; 0 where none was seen. Those above `allowed` count as in `foretell`."""
        at = _class_of(context)
        return max(
            [
                seconds
                for seen, seconds in self._seconds.items()
                if seen[0] <= rows <= FAR * seen[0]
                and seen[1] <= at
                and self._is_believed(seen, allowed)
            ],
            default=0.0,
        )

    def foretell(self, rows: int, context: int, allowed: float) -> float:
        """Seconds of a step of so many rows, a power of two; infinity where none was seen.

        What took longer than `allowed` a while ago counts no more.
        """
        step = (rows, _class_of(context))
        if step in self._seconds and self._is_believed(step, allowed):
            return self._seconds[step]
        most = min([self._from(seen, step) for seen in self._seconds if seen != step], default=inf)
        return max(most, self.at_least(rows, context, allowed))

    def _is_believed(self, step: _Step, allowed: float) -> bool:
        return self._seconds[step] <= allowed or not self._is_old(step)

    def _is_old(self, step: _Step) -> bool:
        return self._num_noted - self._noted_at.get(step, -STALE) >= STALE

    def _from(self, seen: _Step, step: _Step) -> float:
        """Seconds of a step at most, by another that was seen."""
        rows, context = step[0] / seen[0], step[1] / seen[1]
        most = max(rows, 1.0) * max(context, 1.0)
        if rows <= 1 and context > 1:
            most = min(context, self._growth_by_context(step, seen[1]) or context)
        return self._seconds[seen] * most

    def _growth_by_context(self, step: _Step, before: int) -> float:
        """How many times as long steps of half the rows or more took in this one's context as in
        the one before, or the longest before that, at most; 0 where none is known."""
        found, here = [0.0], step[1]
        for rows in [rows for rows, at in self._seconds if at == here and 2 * rows >= step[0]]:
            contexts = [at for other, at in self._seconds if other == rows and at <= before]
            if contexts:
                found.append(self._growth((rows, max(contexts)), (rows, here)))
        return max(found)

    def _growth(self, before: _Step, after: _Step) -> float:
        """How many times as long one took as the other; 0 where it is not known."""
        first = self._seconds.get(before, 0.0)
        return self._seconds[after] / first if first else 0.0


def _class_of(context: int) -> int:
    return max(SHORT, _ceil_power_of_two(context))


def _ceil_power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()
