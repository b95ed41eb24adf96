"""Choices of a prompt in the engine: one runs the prompt, and the others hold nothing meanwhile."""

from __future__ import annotations

import msgspec
import pytest
from fake_runtime import FakeLimits, FakeRuntime, generate
from sharing_engine import PAGE, SharingEngine, text

from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.messages import MAX_CHOICES, Cancel, Failed, Output, Submit
from lostwax.server.engine.options import PLAIN, EngineOptions

LONG = text(8 * PAGE + 1)


def _engine(num_choices: int, prompt: list[int], **limits: int) -> SharingEngine:
    """An engine that was asked for choices of a prompt, and whatever it takes beside them."""
    engine = SharingEngine(PLAIN, **limits)
    for number in range(num_choices):
        name = f"c-{number}"
        engine.tokens[name], engine.scored[name] = [], []
    asked = Submit(request="c", prompt=prompt, max_tokens=5, ignore_eos=True, temperature=1.0)
    assert engine.core.handle(msgspec.structs.replace(asked, num_choices=num_choices)) == []
    return engine


def _answered(engine: SharingEngine, prompt: list[int], *numbers: int) -> None:
    engine.finish()
    for number in numbers:
        assert engine.tokens[f"c-{number}"] == generate(prompt, 5, 1.0, number)


def test_choices_hold_no_page_while_the_first_runs_their_prompt() -> None:
    """Nine pages each, of which eight are shared; they come to ten."""
    engine = _engine(MAX_CHOICES, LONG, num_pages=1 + 8 + 2 * MAX_CHOICES, max_reqs=MAX_CHOICES)
    scheduler = engine.core.scheduler
    waiting: list[tuple[int, int]] = []
    with engine.rows() as rows:
        for _ in range(8 * PAGE // 16):
            engine.step()
            assert [req.name for req in scheduler.running] == ["c-0"]
            stats = engine.core.stats
            assert stats.waiting_for_prompt == scheduler.num_held
            waiting.append((stats.waiting_for_room, stats.waiting_for_prompt))
        others = MAX_CHOICES - 1
        assert waiting == [(0, others)] * (len(waiting) - 1) + [
            (others, 0)
        ]  # at last for their row
        engine.step()
        assert len(scheduler.running) == MAX_CHOICES, "all have begun at once"
        _answered(engine, LONG, *range(MAX_CHOICES))
    assert sum(rows) == len(LONG) + MAX_CHOICES - 1


def test_a_prompt_that_fills_no_page_is_waited_for_by_nobody() -> None:
    prompt = text(PAGE)
    engine = _engine(3, prompt)
    engine.step()
    assert all(engine.tokens[f"c-{i}"] for i in range(3))
    _answered(engine, prompt, 0, 1, 2)


@pytest.mark.parametrize("given", [{"score_prompt": True}, {"prefix_cache": False}])
def test_a_prompt_of_which_nothing_can_be_found_is_waited_for_by_nobody(
    given: dict[str, bool],
) -> None:
    scores = given.get("score_prompt", False)
    core = EngineCore(
        FakeRuntime(FakeLimits(max_tokens=64)),
        EngineOptions(prefix_cache=given.get("prefix_cache", True)),
    )
    asked = Submit(request="c", prompt=text(3 * PAGE), max_tokens=5, score_prompt=scores)
    core.handle(msgspec.structs.replace(asked, num_choices=3))
    assert len(core.step()) == 3


def test_choices_that_wait_are_cancelled_by_themselves() -> None:
    engine = _engine(4, LONG)
    engine.step()
    for number in (2, 3):
        (event,) = engine.core.handle(Cancel(f"c-{number}"))
        assert isinstance(event, Output)
        assert event.finish == "cancelled"
    assert engine.core.scheduler.num_held == 1
    _answered(engine, LONG, 0, 1)
    assert engine.tokens["c-2"] == engine.tokens["c-3"] == []


@pytest.mark.parametrize("num_steps", [0, 1])
def test_the_next_takes_over_where_the_first_is_cancelled(num_steps: int) -> None:
    engine = _engine(4, LONG)
    for _ in range(num_steps):
        engine.step()
    engine.core.handle(Cancel("c-0"))
    with engine.rows() as rows:
        _answered(engine, LONG, 1, 2, 3)
    assert sum(rows) == len(LONG) - 16 * num_steps + 2


def test_a_prompt_that_fails_is_run_for_no_other_choice() -> None:
    """One bad prompt is one failed step: the engine lives, whatever number of answers it wants."""
    engine = _engine(MAX_CHOICES, LONG)
    engine.runtime.fail = True
    engine.step()
    engine.runtime.fail = False
    assert engine.ends == {f"c-{i}": "engine_error" for i in range(MAX_CHOICES)}
    assert not engine.core.has_work
    engine.core.scheduler.check_integrity()


def test_choices_that_wait_end_when_their_time_is_up() -> None:
    now = [0.0]
    core = EngineCore(FakeRuntime(), clock=lambda: now[0])
    asked = Submit(request="c", prompt=LONG, max_tokens=5, timeout_s=1.0, num_choices=3)
    core.handle(asked)
    core.step()
    now[0] = 2.0
    events = core.step()
    assert [event.request for event in events if isinstance(event, Failed)] == asked.names
    assert not core.has_work


@pytest.mark.parametrize("num_choices", [0, -1, MAX_CHOICES + 1, 10**12])
def test_the_engine_refuses_other_numbers_of_choices(num_choices: int) -> None:
    core = EngineCore(FakeRuntime())
    asked = Submit(request="c", prompt=[1], max_tokens=1, num_choices=num_choices)
    (refused,) = core.handle(asked)
    assert isinstance(refused, Failed)
    assert (refused.request, refused.code) == ("c", "invalid_value")
    assert not core.has_work


def test_a_refused_request_is_refused_for_each_of_its_choices() -> None:
    core = EngineCore(FakeRuntime())
    asked = Submit(request="c", prompt=[], max_tokens=1, num_choices=2)
    assert [event.request for event in core.handle(asked)] == ["c-0", "c-1"]
    core.handle(Submit(request="c-1", prompt=[1], max_tokens=1))
    taken = core.handle(msgspec.structs.replace(asked, prompt=[1]))
    assert [event.request for event in taken] == ["c-0", "c-1"]
