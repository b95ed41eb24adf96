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
from lostwax.server.engine.extend_budget import AIM_BY_ROW, MAX_STALL, MIN_ROWS
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
    """A device that takes time: `now` tells what has passed.

    A row of a prefill step takes `per_row` seconds, and twice that where a context is longer than
    SELECTS.
    """

    def __init__(self, per_row: float, max_tokens: int = 128, *, by_row: bool = False) -> None:
        self.pays_by_row = by_row
        super().__init__(
            FakeLimits(max_tokens=max_tokens, max_reqs=16, num_pages=900, max_context=1000)
        )
        self.now, self.per_row, self.plans = 0.0, per_row, list[StepPlan]()

    def submit(self, plan: StepPlan) -> Ticket:
        """Note it, and let its time pass."""
        self.plans.append(plan)
        self.now += DECODE_S if plan.entry == "decode" else self._extend_s(plan)
        return super().submit(plan)

    def _extend_s(self, plan: StepPlan) -> float:
        factor = 2 if max(plan.ends) > SELECTS else 1
        least = DECODE_S if self.pays_by_row else 0.001
        return least + factor * self.per_row * plan.num_rows


@dataclass(slots=True)
class Stalled:
    """What became of it, from when the prompt came until its first token."""

    gaps: list[float] = field(default_factory=list[float])
    """Seconds between two tokens of one stream."""
    plans: list[StepPlan] = field(default_factory=list[StepPlan])
    first_s: float = 0.0
    """The prompt's first token."""


def stalled(
    per_row: float, max_stall: float | None, num_streams: int = 2, *, by_row: bool = False
) -> Stalled:
    """Let the prompt come when each stream has some tokens; all answers must be right."""
    runtime, found = TimedRuntime(per_row, by_row=by_row), Stalled()
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
    """Steps of made-up times are foretold well enough."""
    for per_row in (0.00003, 0.0002, 0.0009):
        for stall in (MAX_STALL, 5.0, 12.0):
            gaps = stalled(per_row, stall).gaps
            least = 0.001 + 2 * per_row * MIN_ROWS  # what a prompt may take in any case
            assert max(gaps) <= max(stall * DECODE_S, least) + 1e-9, per_row


def by_default_a_stream_waits_for_four_decode_steps_at_most() -> None:
    """Also for the first step of the prompt, and for the first that selects positions."""
    for per_row in (0.00003, 0.0002, 0.0009):
        for num_streams in (1, 2, 3, 5, 12):
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


def steps_that_pay_by_their_rows_take_most_of_what_they_may() -> None:
    """However much a row takes: a power of two would be half of what fits."""
    for per_row in (0.0002, 0.0005, 0.0009, 0.0013):
        found = stalled(per_row, MAX_STALL, by_row=True)
        assert max(found.gaps) <= MAX_STALL * DECODE_S + 1e-9, per_row
        late = found.plans[len(found.plans) // 2 : -1]
        took = [DECODE_S + 2 * per_row * p.num_rows for p in late if p.entry == "extend"]
        wanted = min(AIM_BY_ROW * MAX_STALL * DECODE_S, DECODE_S + 2 * per_row * 128)
        assert sum(took) / len(took) > 0.8 * wanted, per_row


def few_answers_alone_have_rows_of_their_own_in_prefill_steps() -> None:
    """Programs for one row a request are cheaper for many: those take turns with the prompt."""
    for num_streams in (MIN_ROWS // 4, MIN_ROWS // 4 + 1, 12):
        plans = stalled(0.0009, MAX_STALL, num_streams).plans
        num_seqs = {len(plan.seqs) for plan in plans if plan.entry == "extend"}
        is_few = 4 * num_streams <= MIN_ROWS
        assert num_seqs == {1 + num_streams if is_few else 1}, num_streams


def an_answer_in_a_long_context_makes_prefill_steps_small_however_short_the_prompt() -> None:
    """Its row makes the step select, of which the steps before said nothing."""
    runtime = TimedRuntime(0.0004)
    core = EngineCore(runtime, EngineOptions(max_stall=MAX_STALL), clock=lambda: runtime.now)
    core.handle(Submit(request="stream", prompt=[3], max_tokens=900, ignore_eos=True))
    come, rows = {10: "first", 40: "second", SELECTS + 10: "late"}, dict[str, int]()
    num_tokens, last, gaps, name = 0, 0.0, list[float](), ""
    while num_tokens < SELECTS + 40:
        if num_tokens in come:
            name, runtime.plans = come.pop(num_tokens), []
            prompt = text(SELECTS - 10, first=num_tokens)
            core.handle(Submit(request=name, prompt=prompt, max_tokens=1, ignore_eos=True))
        for event in core.step():
            assert isinstance(event, Output)
            if event.request == "stream":
                num_tokens += len(event.tokens)
                gaps.append(runtime.now - last)
                last = runtime.now
        if name:
            rows[name] = max(plan.num_rows for plan in runtime.plans)
    assert not come
    assert rows["second"] == SELECTS // 2, "a short context has let steps grow"
    assert rows["late"] == SELECTS // 4
    assert max(gaps[1:]) <= 4 * DECODE_S + 1e-9


STALL_CHECKS = (
    streams_wait_no_longer_than_they_are_told,
    by_default_a_stream_waits_for_four_decode_steps_at_most,
    no_two_prefill_steps_follow_each_other_without_the_streams,
    a_decode_step_follows_a_few_mixed_ones,
    a_prompt_keeps_most_of_its_pace,
    steps_that_pay_by_their_rows_take_most_of_what_they_may,
    few_answers_alone_have_rows_of_their_own_in_prefill_steps,
    an_answer_in_a_long_context_makes_prefill_steps_small_however_short_the_prompt,
)
