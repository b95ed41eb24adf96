"""How many tokens are worth drafting now. Knows counts and seconds, no request and no clock.

What a draft gains depends on the text, what it costs on how many requests run. Both are measured
together: each number of drafts is held for some decode steps, and the one that gave most tokens a
second stays; those beside it are tried again now and then. Numbers of running requests within a
factor of two are taken to be alike.
"""

from __future__ import annotations

from dataclasses import dataclass, field

WINDOW = 8
"""Decode steps for which a number is held. The first verifies drafts of the number before it."""
STALE = 24
"""Windows after which a number beside the best one is tried again."""


@dataclass(slots=True)
class _Alike:
    """What is known of steps of about as many requests."""

    drafts: int
    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0
    window: int = 0
    rates: dict[int, float] = field(default_factory=dict[int, float])
    """Tokens a second in the last window of each number."""
    tried: dict[int, int] = field(default_factory=dict[int, int])
    """Number of that window."""


class DraftLength:
    """1 to `most` drafts: without any, the MTP layer would lack rows for all that follow."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._alike: dict[int, _Alike] = {}

    def choose(self, num_reqs: int) -> int:
        """Drafts behind a decode step of so many requests."""
        return self._of(num_reqs).drafts if self._most else 0

    def note(self, num_reqs: int, num_tokens: int, seconds: float) -> None:
        """A decode step of so many requests gave so many tokens in so long."""
        if self._most <= 1 or not num_reqs:
            return
        now = self._of(num_reqs)
        now.steps += 1
        if now.steps > 1:
            now.tokens += num_tokens
            now.seconds += seconds
        if now.steps <= WINDOW or not now.seconds:
            return
        now.rates[now.drafts] = now.tokens / now.seconds
        now.tried[now.drafts] = now.window
        now.window += 1
        now.drafts = self._next(now)
        now.steps, now.tokens, now.seconds = 0, 0, 0.0

    def _next(self, now: _Alike) -> int:
        best = max(now.rates, key=lambda drafts: now.rates[drafts])
        for beside in (best - 1, best + 1):
            if not 1 <= beside <= self._most:
                continue
            if now.window - now.tried.get(beside, -STALE) >= STALE:
                return beside
        return best

    def _of(self, num_reqs: int) -> _Alike:
        return self._alike.setdefault(num_reqs.bit_length(), _Alike(self._most))
