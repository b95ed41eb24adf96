"""Answers with rows in the prefill steps of others, on a compiled model: those they get alone."""

from __future__ import annotations

import random

import pytest
from small import SMALL

from lostwax.backends.runtime.load import Runtime
from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.messages import Failed, Submit
from lostwax.server.engine.options import EngineOptions
from lostwax.server.engine.scheduled_step import ScheduledStep

STREAMS, PROMPTS = 3, 3


def _submits(temperature: float) -> list[Submit]:
    """Streams, whose tokens are counted in one, and prompts longer than index_topk 32."""
    rng, found = random.Random(5), list[Submit]()
    for number in range(STREAMS + PROMPTS):
        is_stream = number < STREAMS
        prompt = [rng.randrange(SMALL["vocab_size"]) for _ in range(5 if is_stream else 75)]
        submit = Submit(
            request=f"r{number}",
            prompt=prompt,
            max_tokens=40 if is_stream else 6,
            ignore_eos=True,
            temperature=temperature,
            seed=number,
            presence_penalty=0.5 if number == 0 else 0.0,
            min_tokens=20 if number == 1 else 0,
        )
        found.append(submit)
    return found


def _take(core: EngineCore, tokens: dict[str, list[int]]) -> None:
    for event in core.step():
        assert not isinstance(event, Failed), event
        tokens.setdefault(event.request, []).extend(score.token for score in event.tokens)
    core.scheduler.check_integrity()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("drafts", [0, 3])
def test_answers_beside_prompts_are_those_they_get_alone(
    random_model: Runtime, drafts: int, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    submits, alone = _submits(temperature), dict[str, list[int]]()
    for submit in submits:
        core = EngineCore(random_model, EngineOptions(0, prefix_cache=False))
        core.handle(submit)
        while core.has_work:
            _take(core, alone)
    core = EngineCore(random_model, EngineOptions(drafts, max_stall=3.0, prefix_cache=False))
    steps, schedule = list[ScheduledStep](), core.scheduler.schedule

    def noted() -> ScheduledStep | None:
        step = schedule()
        if step is not None:
            steps.append(step)
            assert not (step.is_mixed and any(chunk.req.drafts for chunk in step.chunks))
        return step

    monkeypatch.setattr(core.scheduler, "schedule", noted)
    tokens = dict[str, list[int]]()
    for submit in submits[:STREAMS]:
        core.handle(submit)
    for _ in range(6):
        _take(core, tokens)
    for submit in submits[STREAMS:]:
        core.handle(submit)
    while core.has_work:
        _take(core, tokens)
    assert tokens == alone
    num_mixed = sum(step.is_mixed for step in steps)
    assert num_mixed < 3 if drafts else num_mixed > 3  # few answers have no drafts, near their ends
