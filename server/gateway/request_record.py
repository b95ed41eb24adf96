"""What an operator may know of one HTTP request: times, tokens and its end. Knows no text.

The middleware makes it, whoever answers the request fills it, and observers read it at the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

Outcome = Literal["ok", "stop", "length", "cancelled", "refused", "busy", "unavailable", "failed"]
"""How a request ended: an answer by its finish reason (`ok` where it has none; `tool_calls` is a
`stop`), a client that left
(`cancelled`), 429 (`busy`), another 4xx (`refused`), 503 (`unavailable`), another error
(`failed`). Of several choices, one that was cut short counts: `length` before `stop`."""


@dataclass(slots=True)
class _Pace:
    """When a choice's tokens came, and how many."""

    first_s: float
    last_s: float = 0.0
    num_tokens: int = 0


class Observer(Protocol):
    """Is told of all requests."""

    def tokens(self, gap_s: float | None, count: int) -> None:
        """A choice was given `count` tokens, `gap_s` after those before; None for the first."""
        ...

    def prompt(self, num_tokens: int, num_cached: int) -> None:
        """A choice began behind so many prompt tokens, of which some were cached."""
        ...

    def first_token(self, seconds: float) -> None:
        """The first token of a request is there, so long after its head."""
        ...

    def ended(self, record: RequestRecord) -> None:
        """A request has ended."""
        ...


@dataclass(slots=True)
class RequestRecord:
    """One request; times are of `clock`, in seconds. An answer that failed after its status was
    sent has the status of its error."""

    method: str
    route: str
    """The path as the application knows it, so that there are few."""
    request_id: str
    client: str
    trace_context: dict[str, str] = field(default_factory=dict[str, str])
    """The caller's headers `traceparent` and `tracestate`, as they came."""
    observers: Sequence[Observer] = ()
    clock: Callable[[], float] = time.perf_counter
    begun_s: float = field(init=False)
    ended_s: float | None = None
    first_token_s: float | None = None
    status: int = 0
    num_prompt: int = 0
    num_cached: int = 0
    num_output: int = 0
    finish: str | None = None
    has_left: bool = False
    """The client closed its connection before the end."""
    generates: bool = False
    """The engine was asked."""
    _paces: dict[int, _Pace] = field(default_factory=dict[int, "_Pace"])
    """Of each choice that has tokens."""

    def __post_init__(self) -> None:
        self.begun_s = self.clock()

    def note_prompt(self, num_tokens: int, num_cached: int) -> None:
        """A choice began behind so many prompt tokens, of which some were cached."""
        self.num_cached += num_cached
        for observer in self.observers:
            observer.prompt(num_tokens, num_cached)

    def note_tokens(self, choice: int, count: int) -> None:
        """The engine gave a choice some tokens."""
        now = self.clock()
        is_first = self.first_token_s is None
        if is_first:
            self.first_token_s = now
        pace = self._paces.get(choice)
        before = None if pace is None else pace.last_s
        if pace is None:
            pace = self._paces[choice] = _Pace(now)
        pace.last_s = now
        pace.num_tokens += count
        self.num_output += count
        for observer in self.observers:
            if is_first:
                observer.first_token(now - self.begun_s)
            observer.tokens(None if before is None else now - before, count)

    def note_finish(self, reason: str) -> None:
        """A choice came to its end."""
        if self.finish != "length":
            self.finish = reason

    def end(self) -> None:
        """The answer was sent, or nobody is there to read it."""
        self.ended_s = self.clock()
        for observer in self.observers:
            observer.ended(self)

    @property
    def outcome(self) -> Outcome:
        """How it ended."""
        if self.has_left or self.status == 499:
            return "cancelled"
        if self.status == 429:
            return "busy"
        if self.status == 503:
            return "unavailable"
        if self.status >= 500 or not self.status:
            return "failed"
        if self.status >= 400:
            return "refused"
        if self.generates and self.finish in ("stop", "length", "tool_calls"):
            return "length" if self.finish == "length" else "stop"
        return "ok"

    @property
    def total_s(self) -> float:
        """From its head to its end, or until now."""
        return (self.clock() if self.ended_s is None else self.ended_s) - self.begun_s

    @property
    def ttft_s(self) -> float | None:
        """From its head to the first token; None where there was none."""
        return None if self.first_token_s is None else self.first_token_s - self.begun_s

    @property
    def per_token_s(self) -> list[float]:
        """Of each choice that has more than one token, the mean time of one behind its first."""
        return [
            (pace.last_s - pace.first_s) / (pace.num_tokens - 1)
            for pace in self._paces.values()
            if pace.num_tokens > 1
        ]
