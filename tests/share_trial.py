"""Prompts of other lengths beside one another, and whose rows come first. Tests nothing itself.

A check raises AssertionError where a small prompt waits for a long one, or a long one for ever.
"""

from __future__ import annotations

from collections.abc import Sequence

from fake_runtime import generate
from sharing_engine import SharingEngine, text
from stall_trial import DECODE_S, PROMPT, SELECTS, TimedRuntime

from lostwax.server.engine.extend_budget import MAX_STALL
from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.messages import Output, Submit
from lostwax.server.engine.options import EngineOptions
from lostwax.server.engine.request import Req
from lostwax.server.engine.scheduled_step import ScheduledStep

ROWS = 16
"""Of a step of the fake runtime."""


def require_fair_share(running: Sequence[Req], step: ScheduledStep) -> None:
    """The eldest prompt of those that have begun has half of a step's known rows at least, or all
    that it has left: so it comes to its end, and then the next one is the eldest."""
    rows = {chunk.req: chunk.count for chunk in step.chunks if chunk.req.is_prefilling}
    prompts = (r for r in running if r.is_prefilling and (r.has_begun or r in rows))
    eldest = next(prompts, None)
    if step.entry == "extend" and eldest is not None:
        left = eldest.num_known - eldest.num_planned
        assert 2 * rows.get(eldest, 0) >= min(2 * left, sum(rows.values())), f"{eldest.name} waits"


def _steps_until(engine: SharingEngine, name: str) -> int:
    """How many steps it takes until a request has a token."""
    count = 0
    while not engine.tokens[name]:
        engine.step()
        count += 1
    return count


def a_small_prompt_runs_beside_a_long_one() -> None:
    """It takes the steps that half of the rows take."""
    engine = SharingEngine(num_pages=400, max_reqs=8, max_context=1000)
    engine.add("long", text(PROMPT), 1)
    engine.step()
    for number, length in enumerate((1, ROWS // 2, ROWS, 3 * ROWS)):
        engine.add(f"small {number}", [number] * length, 1)
        assert _steps_until(engine, f"small {number}") == -(-2 * length // ROWS)
    assert not engine.tokens["long"]


def the_fewest_rows_go_first() -> None:
    """Of those that came behind the eldest, in whatever order."""
    engine = SharingEngine(num_pages=400, max_reqs=8, max_context=1000)
    lengths = {"long": PROMPT, "third": 5 * ROWS, "first": ROWS, "second": 2 * ROWS}
    for number, (name, length) in enumerate(lengths.items()):
        engine.add(name, [number] * length, 1)
    order: list[str] = []
    while engine.core.has_work:
        engine.step()
        order += [name for name, end in engine.ends.items() if end and name not in order]
    assert order == ["first", "second", "third", "long"]


def a_long_prompt_takes_at_most_twice_its_steps_however_many_small_ones_come() -> None:
    """Each step another one comes that would fill it."""
    engine = SharingEngine(num_pages=400, max_reqs=8, max_context=1000)
    engine.add("long", text(PROMPT), 1)
    count = 0
    while not engine.tokens["long"]:
        engine.add(f"small {count}", [count % 40] * ROWS, 1)
        engine.step()
        count += 1
    assert count == -(-2 * PROMPT // ROWS)


class _Streamed:
    """A stream under way over a device whose step takes `per_row` seconds a row, and others."""

    def __init__(self, per_row: float) -> None:
        self.runtime = TimedRuntime(per_row)
        options = EngineOptions(max_stall=MAX_STALL)
        self.core = EngineCore(self.runtime, options, clock=lambda: self.runtime.now)
        self.ends_s: dict[str, float] = {}
        self.gaps: list[float] = []
        """Seconds between two tokens of the stream."""
        self._last_s: float | None = None
        self.add("stream", [3], 900)
        self.step(10)

    def add(self, name: str, prompt: list[int], max_tokens: int = 1) -> None:
        self.core.handle(
            Submit(request=name, prompt=prompt, max_tokens=max_tokens, ignore_eos=True)
        )

    def step(self, count: int = 1) -> None:
        for _ in range(count):
            for event in self.core.step():
                assert isinstance(event, Output)
                if event.finish:
                    self.ends_s[event.request] = self.runtime.now
                if event.request == "stream":
                    if self._last_s is not None:
                        self.gaps.append(self.runtime.now - self._last_s)
                    self._last_s = self.runtime.now

    def finish(self, *names: str) -> None:
        while not self.ends_s.keys() >= {*names}:
            self.step()

    def ask(self, name: str, prompt: list[int]) -> None:
        self.add(name, prompt)
        self.finish(name)


def beside_a_stream_a_small_prompt_waits_for_few_steps_and_the_stream_no_longer() -> None:
    """Whatever the long one has left."""
    engine = _Streamed(0.0009)
    engine.add("long", text(PROMPT))
    engine.step(10)
    engine.add("small", [5] * 20)
    began_s = engine.runtime.now
    engine.gaps.clear()
    engine.finish("small", "long")
    assert engine.ends_s["small"] - began_s < 0.25 * (engine.ends_s["long"] - began_s)
    assert max(engine.gaps) <= 4 * DECODE_S + 1e-9


def a_stream_waits_no_longer_for_a_neighbour_in_a_long_context() -> None:
    """What fits the eldest's short context does not fit what the neighbour has found."""
    engine = _Streamed(0.0009)
    engine.ask("long", text(PROMPT))
    for number in range(6):
        engine.ask(f"short {number}", [number] * (SELECTS - 18))
    engine.gaps.clear()
    engine.add("eldest", [7] * (SELECTS - 18))
    engine.add("neighbour", [*text(PROMPT), *[8] * 28])  # which has the fewest rows
    engine.finish("eldest", "neighbour")
    assert max(engine.gaps) <= 4 * DECODE_S + 1e-9


def the_eldest_keeps_its_half_where_more_would_reach_a_context_that_bounds_it() -> None:
    """Rows that its neighbour leaves would take it beyond what steps were measured at."""
    engine = _Streamed(0.0004)
    for number in range(2):
        engine.ask(f"short {number}", [number] * (SELECTS - 10))
    most = 63  # and a row of the stream
    counts = list[tuple[int, ...]]()
    for name, prompt in (("eldest", text(PROMPT)), ("first", [7] * 31), ("second", [8] * 25)):
        engine.add(name, prompt)
        engine.step()
        if engine.runtime.plans[-1].entry == "decode":  # which is owed behind so many mixed steps
            engine.step()
        counts.append(engine.runtime.plans[-1].counts)
    assert counts == [(1, most), (1, 32, 31), (1, 32, 25)]


def of_equal_prompts_behind_the_eldest_one_is_run() -> None:
    """Though a step has rows for both."""
    engine = SharingEngine(max_tokens=128, num_pages=400, max_reqs=8, max_context=1000)
    engine.add("eldest", text(PROMPT), 1)
    engine.step()
    for name in ("first", "second"):
        engine.add(name, [5] * 24, 1)
    engine.finish()
    assert engine.found == {"eldest": 0, "first": 0, "second": 20}


def who_ends_has_all_its_rows_or_none() -> None:
    """Of one that was preempted with two tokens to come, some rows would lack the MTP layer's."""
    engine = SharingEngine(
        EngineOptions(prefix_cache=False),
        max_drafts=3, num_pages=400, max_reqs=8, max_context=1000,
    )  # fmt: skip
    engine.add("ending", text(20), 6, priority=1)
    scheduler = engine.core.scheduler
    while not scheduler.running or scheduler.running[0].num_to_come > 2:
        engine.step()
    scheduler.preempt(scheduler.running[0])
    engine.add("eldest", text(PROMPT), 1)
    engine.step()
    engine.step()
    engine.add("drafting", [5, 6], 6)
    engine.finish()
    assert engine.ends == dict.fromkeys(("ending", "eldest", "drafting"), "length")
    assert engine.tokens["ending"] == generate(text(20), 6)


SHARE_CHECKS = (
    a_small_prompt_runs_beside_a_long_one,
    the_fewest_rows_go_first,
    a_long_prompt_takes_at_most_twice_its_steps_however_many_small_ones_come,
    beside_a_stream_a_small_prompt_waits_for_few_steps_and_the_stream_no_longer,
    a_stream_waits_no_longer_for_a_neighbour_in_a_long_context,
    the_eldest_keeps_its_half_where_more_would_reach_a_context_that_bounds_it,
    of_equal_prompts_behind_the_eldest_one_is_run,
    who_ends_has_all_its_rows_or_none,
)
