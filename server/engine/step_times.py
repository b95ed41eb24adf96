"""What prefill steps took, and what another would take. Knows seconds, no clock and no bound.

Steps are told apart by their rows and their longest context, both as powers of two. One that was
never seen is foretold from the others: at most, it takes as many times as long as it has times
their rows and their context, and no longer than one that has more of both. Of half the rows, and of
half the context, more may be known: how much longer they took than the step before them did.
"""

from __future__ import annotations

from math import inf

SHORT = 64
"""Tokens: contexts up to this are one."""
STALE = 32
"""Prefill steps behind one that took too long, in which that is believed; then it may run again."""

_Step = tuple[int, int]
"""Rows and context, powers of two."""


class StepTimes:
    """Seconds of prefill steps, as they come."""

    def __init__(self) -> None:
        self._begun: set[_Step] = set()
        self._seconds: dict[_Step, float] = {}
        self._noted_at: dict[_Step, int] = {}
        self._num_noted = 0

    def note(self, num_rows: int, context: int, seconds: float) -> None:
        """A step took so long; what one like it took before counts half. The first of its kind
        tells nothing, as it takes longer than those that follow; nor does one whose rows are far
        from a power of two."""
        rows = _ceil_power_of_two(num_rows)
        self._num_noted += 1
        if 4 * num_rows <= 3 * rows:
            return
        step = (rows, _class_of(context))
        if step in self._begun:
            before = seconds if self._is_old(step) else self._seconds[step]
            self._seconds[step] = (before + seconds) / 2
            self._noted_at[step] = self._num_noted
        self._begun.add(step)

    def foretell(self, rows: int, context: int, allowed: float) -> float:
        """Seconds of a step of so many rows, a power of two; infinity where none was seen.

        What took longer than `allowed` a while ago counts no more.
        """
        step = (rows, _class_of(context))
        seconds = self._seconds.get(step, inf)
        if seconds <= allowed or not self._is_old(step):
            return seconds
        return min([self._from(seen, step) for seen in self._seconds if seen != step], default=inf)

    def _is_old(self, step: _Step) -> bool:
        return self._num_noted - self._noted_at.get(step, -STALE) >= STALE

    def _from(self, seen: _Step, step: _Step) -> float:
        """Seconds of a step at most, by another that was seen."""
        rows, context = step[0] / seen[0], step[1] / seen[1]
        most = max(rows, 1.0) * max(context, 1.0)
        if (rows, context) == (2, 1):
            most = self._growth((seen[0] // 2, seen[1]), seen)
        elif (rows, context) == (1, 2):
            most = self._growth_by_context(step[1])
        return self._seconds[seen] * most

    def _growth_by_context(self, context: int) -> float:
        """How many times as long steps took here as in contexts of half the length, at most."""
        here = [(rows, at) for rows, at in self._seconds if at == context]
        before = [(rows, context // 2) for rows, _ in here]
        pairs = zip(before, here, strict=True)
        return max([self._growth(*pair) for pair in pairs if pair[0] in self._seconds], default=2.0)

    def _growth(self, before: _Step, after: _Step) -> float:
        """How many times as long one took as the other; 2 at most, and where one is not known."""
        first = self._seconds.get(before, 0.0)
        if not first:
            return 2.0
        return min(max(self._seconds[after] / first, 1.0), 2.0)


def _class_of(context: int) -> int:
    return max(SHORT, _ceil_power_of_two(context))


def _ceil_power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()
