"""What an operator is told of the engine: sums since it began, and what there is now.

Knows no socket. The engine's thread adds up each step's numbers, as its plan has them, and forms a
`Stats` twice a second at most.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from lostwax.ir.contract.step_plan import StepPlan
from lostwax.server.engine.commit import Drafting
from lostwax.server.engine.messages import Stats
from lostwax.server.engine.scheduler import Scheduler

INTERVAL_S = 0.5
"""Between two reports at least, while the engine works."""


def _of_entries() -> dict[str, int]:
    return {"extend": 0, "decode": 0}


@dataclass(slots=True)
class StepCounts:
    """Steps that came back: their number, seconds and rows by entry, and by segment how many ran a
    program of it. A step's seconds are those of all its programs: the host sees its end alone."""

    steps: dict[str, int] = field(default_factory=_of_entries)
    rows: dict[str, int] = field(default_factory=_of_entries)
    seconds: dict[str, float] = field(default_factory=lambda: {"extend": 0.0, "decode": 0.0})
    heads: dict[str, int] = field(default_factory=lambda: {"pick": 0, "sample": 0, "score": 0})
    drafts: int = 0

    def note(self, step: StepPlan, seconds: float) -> None:
        """A step is done and took so long."""
        entry = step.entry
        self.steps[entry] += 1
        self.seconds[entry] += seconds
        self.rows[entry] += step.num_rows
        if step.logits:
            self.heads[step.head] += 1
        self.drafts += step.drafts > 0


def stats_of(scheduler: Scheduler, counts: StepCounts, drafting: Drafting) -> Stats:
    """What there is now."""
    pages, num_waiting = scheduler.pages, len(scheduler.waiting)
    lacks_slots = len(scheduler.running) >= scheduler.max_running
    return Stats(
        running=len(scheduler.running),
        waiting_for_slots=num_waiting if lacks_slots else 0,
        waiting_for_room=0 if lacks_slots else num_waiting,
        pages_used=pages.num_usable - pages.num_free,
        pages_idle=pages.num_free - pages.num_blank,
        pages_blank=pages.num_blank,
        prefix_tokens=scheduler.num_prefix_tokens,
        preemptions=scheduler.num_preempted,
        segments={**counts.steps, "draft": counts.drafts, **counts.heads},
        seconds=dict(counts.seconds),
        rows=dict(counts.rows),
        drafted=drafting.num_drafted,
        accepted=drafting.num_accepted,
    )


class StatsClock:
    """Says when a report is due: INTERVAL_S after the last one, and when work comes to an end."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next_s = clock()
        self._is_idle = False

    def is_due(self, *, is_busy: bool) -> bool:
        """Whether to report now; a True counts as done. `is_busy`: there is work left."""
        if not is_busy:
            was_idle, self._is_idle = self._is_idle, True
            return not was_idle
        self._is_idle = False
        now = self._clock()
        if now < self._next_s:
            return False
        self._next_s = now + INTERVAL_S
        return True
