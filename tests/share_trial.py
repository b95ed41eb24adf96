"""Prompts of other lengths beside one another, and whose rows come first. Tests nothing itself.

A check raises AssertionError where a small prompt waits for a long one, or a long one for ever.
"""

from __future__ import annotations

from collections.abc import Sequence

from sharing_engine import SharingEngine, text
from stall_trial import DECODE_S, PROMPT, TimedRuntime

from lostwax.server.engine.extend_budget import MAX_STALL
from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.messages import Submit
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


def beside_a_stream_a_small_prompt_waits_for_few_steps_and_the_stream_no_longer() -> None:
    """Whatever the long one has left."""
    runtime = TimedRuntime(0.0009)
    core = EngineCore(runtime, EngineOptions(max_stall=MAX_STALL), clock=lambda: runtime.now)

    def ask(name: str, prompt: list[int], max_tokens: int) -> None:
        core.handle(Submit(request=name, prompt=prompt, max_tokens=max_tokens, ignore_eos=True))

    ask("stream", [3], 900)
    for _ in range(10):
        core.step()
    ask("long", text(PROMPT), 1)
    for _ in range(10):
        core.step()
    ask("small", [5] * 20, 1)
    began, last, gaps = runtime.now, runtime.now, list[float]()
    small_s = long_s = 0.0
    while not long_s:
        for event in core.step():
            if event.request == "stream":
                gaps.append(runtime.now - last)
                last = runtime.now
            elif event.request == "small":
                small_s = runtime.now - began
            else:
                long_s = runtime.now - began
    assert small_s < 0.25 * long_s
    assert max(gaps[1:]) <= 4 * DECODE_S + 1e-9


SHARE_CHECKS = (
    a_small_prompt_runs_beside_a_long_one,
    the_fewest_rows_go_first,
    a_long_prompt_takes_at_most_twice_its_steps_however_many_small_ones_come,
    beside_a_stream_a_small_prompt_waits_for_few_steps_and_the_stream_no_longer,
)
