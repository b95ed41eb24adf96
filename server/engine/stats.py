"""What an operator is told of the engine: sums since it began, and what there is now.

Knows no socket. The engine's thread adds up each step's numbers, as its plan has them, and forms a
`Stats` twice a second at most.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from lostwax.ir.contract.program import HEADS, Head
from lostwax.ir.contract.step_plan import StepPlan
from lostwax.server.engine.commit import Drafting
from lostwax.server.engine.messages import Stats
from lostwax.server.engine.scheduler import Scheduler
from lostwax.server.grammar.counts import GrammarStats

INTERVAL_S = 0.5
"""Between two reports at least, while the engine works."""


@dataclass(slots=True)
class EntryCounts:
    """Steps of one entry that came back: their number, and seconds of all their programs: the host
    sees a step's end alone. Rows are by what they are: those of answers are decode's in prefill
    steps, too."""

    steps: int = 0
    rows: int = 0
    seconds: float = 0.0


def _of_heads() -> dict[Head, int]:
    return dict.fromkeys(HEADS, 0)


@dataclass(slots=True)
class StepCounts:
    """Steps that came back, by entry, and how many ran a program of each head or drafted."""

    extend: EntryCounts = field(default_factory=EntryCounts)
    decode: EntryCounts = field(default_factory=EntryCounts)
    heads: dict[Head, int] = field(default_factory=_of_heads)
    drafts: int = 0

    def note(self, step: StepPlan, seconds: float, num_answers: int = 0) -> None:
        """A step is done and took so long; `num_answers` rows of a prefill step were answers'."""
        entry = self.decode if step.entry == "decode" else self.extend
        entry.steps += 1
        entry.rows += step.num_rows - num_answers
        entry.seconds += seconds
        self.decode.rows += num_answers
        if step.logits:
            self.heads[step.head] += 1
        if step.drafts:
            self.drafts += 1


def stats_of(
    scheduler: Scheduler,
    counts: StepCounts,
    drafting: Drafting,
    grammars: GrammarStats | None = None,
) -> Stats:
    """What there is now."""
    pages, num_waiting = scheduler.pages, len(scheduler.waiting)
    extend, decode = counts.extend, counts.decode
    tier = scheduler.host_tier
    lacks_slots = len(scheduler.running) >= scheduler.max_running
    return Stats(
        running=len(scheduler.running),
        waiting_for_slots=num_waiting if lacks_slots else 0,
        waiting_for_room=0 if lacks_slots else num_waiting,
        waiting_for_prompt=scheduler.num_held,
        pages_used=pages.num_usable - pages.num_free,
        pages_idle=pages.num_free - pages.num_blank,
        pages_blank=pages.num_blank,
        prefix_tokens=scheduler.num_prefix_tokens,
        host_pages_saved=tier.num_saved if tier else 0,
        host_pages_restored=tier.num_restored if tier else 0,
        preemptions=scheduler.num_preempted,
        segments={
            "extend": extend.steps,
            "decode": decode.steps,
            "draft": counts.drafts,
            **counts.heads,
        },
        seconds={"extend": extend.seconds, "decode": decode.seconds},
        rows={"extend": extend.rows, "decode": decode.rows},
        drafted=drafting.num_drafted,
        accepted=drafting.num_accepted,
        grammars=grammars,
    )


class StatsClock:
    """Says when a report is due: INTERVAL_S after the last one, when work comes to an end, and when
    what is still heard behind that has come, too."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next_s = clock()
        self._was_settling: bool | None = None
        """None while there was work."""

    def is_due(self, *, is_busy: bool, is_settling: bool = False) -> bool:
        """Whether to report now; a True counts as done. `is_busy`: there is work left, and
        `is_settling`: something else to be reported is yet to be heard."""
        if not is_busy:
            before, self._was_settling = self._was_settling, is_settling
            return before is None or (before and not is_settling)
        self._was_settling = None
        now = self._clock()
        if now < self._next_s:
            return False
        self._next_s = now + INTERVAL_S
        return True
