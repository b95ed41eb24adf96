"""What an operator is told of grammars: sums since the engine began, and the processes there are.

Knows no process and no clock.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Literal, get_args

import msgspec

Reason = Literal["invalid", "too_slow", "too_many", "failed"]
"""Why a grammar is not followed: its own fault, the time or memory that it takes, too many wait, or
what compiles it did not start or was killed."""
REASONS: tuple[Reason, ...] = get_args(Reason)
COMPILE_BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0)
"""Of the histogram: honest grammars take milliseconds, and none may take more than 2 s; the first
waits for the vocabulary to be loaded, too."""


class GrammarStats(msgspec.Struct, frozen=True, kw_only=True):
    """Grammars of requests: `compiled` for them, `cached` (compiled before, or being compiled for
    another request), `refused` by reason. `compile_counts` are how many were compiled within each
    of COMPILE_BOUNDS_S and no earlier one, and the rest last; `compile_seconds` of all of them.
    `mask_seconds` are those that `masked_steps` waited for masks. `processes` by what they do."""

    compiled: int
    cached: int
    refused: dict[str, int]
    compile_counts: list[int]
    compile_seconds: float
    masked_steps: int
    mask_seconds: float
    processes: dict[str, int]


@dataclass(slots=True)
class GrammarCounts:
    """The sums so far."""

    compiled: int = 0
    cached: int = 0
    masked_steps: int = 0
    mask_seconds: float = 0.0
    _refused: dict[Reason, int] = field(default_factory=lambda: dict.fromkeys(REASONS, 0))
    _compile_counts: list[int] = field(default_factory=lambda: [0] * (len(COMPILE_BOUNDS_S) + 1))
    _compile_seconds: float = 0.0

    def note_compiled(self, seconds: float) -> None:
        """A grammar can be followed, so long after a process was asked for."""
        self.compiled += 1
        self._compile_seconds += seconds
        self._compile_counts[bisect_left(COMPILE_BOUNDS_S, seconds)] += 1

    def note_refused(self, reason: Reason) -> None:
        """A grammar will not be followed."""
        self._refused[reason] += 1

    def note_masks(self, seconds: float) -> None:
        """A step waited so long for its masks."""
        self.masked_steps += 1
        self.mask_seconds += seconds

    def stats(self, processes: dict[str, int]) -> GrammarStats:
        """What there is now."""
        return GrammarStats(
            compiled=self.compiled,
            cached=self.cached,
            refused={**self._refused},
            compile_counts=list(self._compile_counts),
            compile_seconds=self._compile_seconds,
            masked_steps=self.masked_steps,
            mask_seconds=self.mask_seconds,
            processes=processes,
        )
