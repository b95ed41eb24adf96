"""Streams beside a long prompt, over a device whose steps take made-up times. Tests nothing itself.

A check raises AssertionError where streams wait for longer than the engine was told, or the prompt
for longer than that costs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

from fake_runtime import FakeLimits, FakeRuntime, generate
from sharing_engine import text

from lostwax.ir.contract.step_plan import StepPlan
from lostwax.server.engine.extend_budget import LEFT, MAX_STALL, MIN_ROWS
from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.messages import Output, Submit
from lostwax.server.engine.options import EngineOptions
from lostwax.server.engine.runtime import Ticket
from lostwax.server.engine.scheduler import MIXED_IN_A_ROW

DECODE_S = 0.010
PROMPT = 600
SELECTS = 128
"""The longest context whose positions are not selected from."""


class TimedRuntime(FakeRuntime):
    """A device of two streams at most: `now` tells what has passed.

    A row of a prefill step takes `per_row` seconds, and twice that where a context is longer than
    SELECTS.
    """

    def __init__(self, per_row: float, max_tokens: int = 128) -> None:
        super().__init__(FakeLimits(max_tokens=max_tokens, num_pages=900, max_context=1000))
        self.now, self.per_row, self.plans = 0.0, per_row, list[StepPlan]()

    def submit(self, plan: StepPlan) -> Ticket:
        """Note it, and let its time pass."""
        self.plans.append(plan)
        self.now += DECODE_S if plan.entry == "decode" else self._extend_s(plan)
        return super().submit(plan)

    def _extend_s(self, plan: StepPlan) -> float:
        factor = 2 if max(plan.ends) > SELECTS else 1
        return 0.001 + factor * self.per_row * plan.num_rows


@dataclass(slots=True)
class Stalled:
    """What became of it, from when the prompt came until its first token."""

    gaps: list[float] = field(default_factory=list[float])
    """Seconds between two tokens of one stream."""
    plans: list[StepPlan] = field(default_factory=list[StepPlan])
    first_s: float = 0.0
    """The prompt's first token."""


def stalled(per_row: float, max_stall: float | None, num_streams: int = 2) -> Stalled:
    """Let the prompt come when each stream has some tokens; all answers must be right."""
    runtime, found = TimedRuntime(per_row), Stalled()
    core = EngineCore(runtime, EngineOptions(max_stall=max_stall), clock=lambda: runtime.now)
    names = [f"stream {i}" for i in range(num_streams)]
    for name in names:
        core.handle(Submit(request=name, prompt=[3], max_tokens=900, ignore_eos=True))
    last, began, tokens = dict.fromkeys(names, 0.0), 0.0, dict[str, list[int]]()
    while not found.first_s:
        if not began and len(tokens.get(names[-1], [])) == 10:
            prompt = text(PROMPT)
            core.handle(Submit(request="prompt", prompt=prompt, max_tokens=3, ignore_eos=True))
            began = runtime.now
            runtime.plans.clear()
        for event in core.step():
            assert isinstance(event, Output)
            tokens.setdefault(event.request, []).extend(score.token for score in event.tokens)
            if event.request == "prompt":
                found.first_s = runtime.now - began
                continue
            if began:
                found.gaps.append(runtime.now - last[event.request])
            last[event.request] = runtime.now
    found.plans = runtime.plans
    for name, its in tokens.items():
        assert its == generate(text(PROMPT) if name == "prompt" else [3], len(its)), name
    return found


def streams_wait_no_longer_than_they_are_told() -> None:
    """A growth that is tried may take a third more."""
    for per_row in (0.00003, 0.0002, 0.0009):
        for stall in (MAX_STALL, 5.0, 12.0):
            gaps = stalled(per_row, stall).gaps
            least = 0.001 + 2 * per_row * MIN_ROWS  # what a prompt may take in any case
            assert max(gaps) <= max(2 * (1 - LEFT) * stall * DECODE_S, least) + 1e-9, per_row


def by_default_a_stream_waits_for_four_decode_steps_at_most() -> None:
    """Also for the first step of the prompt, and for the first that selects positions."""
    for per_row in (0.00003, 0.0002, 0.0009):
        for num_streams in (1, 2, 3):
            gaps = stalled(per_row, MAX_STALL, num_streams).gaps
            assert max(gaps) <= 4 * DECODE_S + 1e-9, (per_row, num_streams)


def no_two_prefill_steps_follow_each_other_without_the_streams() -> None:
    """Each stream has a row in one of two at least."""
    for stall in (MAX_STALL, None):
        plans = stalled(0.0002, stall).plans
        has_all = [len(plan.seqs) >= 2 for plan in plans]
        assert all(a or b for a, b in pairwise(has_all))


def a_decode_step_follows_a_few_mixed_ones() -> None:
    """It tells what the next may take, which changes as answers grow."""
    plans = stalled(0.0009, MAX_STALL).plans
    decoding = [i for i, plan in enumerate(plans) if plan.entry == "decode"]
    assert len(decoding) > 2
    steps = [b - a for a, b in pairwise(decoding)]
    assert set(steps) == {1 + MIXED_IN_A_ROW}


def a_prompt_keeps_most_of_its_pace() -> None:
    """Half of its time is its own at least, as decode steps are few."""
    for per_row in (0.0002, 0.0009):
        alone = PROMPT * 2 * per_row
        assert stalled(per_row, MAX_STALL).first_s <= 2 * alone


STALL_CHECKS = (
    streams_wait_no_longer_than_they_are_told,
    by_default_a_stream_waits_for_four_decode_steps_at_most,
    no_two_prefill_steps_follow_each_other_without_the_streams,
    a_decode_step_follows_a_few_mixed_ones,
    a_prompt_keeps_most_of_its_pace,
)
