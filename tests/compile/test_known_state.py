"""The state that programs read is what the engine knows, step by step, on a real artifact."""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec
import pytest
from drafting_models import SIZES, Answers, answers, prompts
from known_state import NotingRuntime, Row

from lostwax.backends.runtime.load import Runtime
from lostwax.ir.contract.step_state import STEP_STATE
from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.messages import Submit
from lostwax.server.engine.options import EngineOptions

DEPTHS = (0, 1, 2)
DRAFTS = (0, 1, 3)


def _submits(count: int, seed: int, max_tokens: int = 14) -> list[Submit]:
    """Those of `prompts`, half of the sampled ones from a nucleus."""
    return [
        msgspec.structs.replace(submit, top_p=0.8 if i % 2 and submit.temperature else 1.0)
        for i, submit in enumerate(prompts(count, seed, max_tokens))
    ]


def _preempting(seed: int) -> Callable[[EngineCore], None]:
    """Takes pages and row from one request in eight, behind a step."""
    rng = random.Random(seed)

    def disturb(core: EngineCore) -> None:
        running = core.scheduler.running
        if running and rng.random() < 1 / 8:
            core.scheduler.preempt(rng.choice(running))

    return disturb


def _played(runtime: Runtime, drafts: int, depth: int) -> Answers:
    plain = answers(runtime, _submits(10, seed=4), drafts, depth)
    disturbed = answers(runtime, _submits(10, seed=4), drafts, depth, _preempting(drafts + depth))
    assert disturbed.tokens == plain.tokens
    assert disturbed.num_states > 30
    return plain


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("drafts", DRAFTS)
@pytest.mark.parametrize("model", ["random_model", "good_drafts"])
def test_each_row_is_what_the_engine_knows(
    model: str, drafts: int, depth: int, request: pytest.FixtureRequest
) -> None:
    """Preempted or not; and the answers are those of no drafts and of no step in flight."""
    runtime = request.getfixturevalue(model)
    played = _played(runtime, drafts, depth)
    assert played.num_states > 40
    assert played.tokens == answers(runtime, _submits(10, seed=4), 0).tokens


@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize("drafts", [0, 3])
def test_requests_that_give_way_where_pages_are_scarce_answer_as_they_do_alone(
    drafts: int, depth: int, good_drafts: Runtime
) -> None:
    runtime, submits = good_drafts, _submits(12, seed=6, max_tokens=70)
    scarce = answers(runtime, submits, drafts, depth, num_pages=1 + 10)
    assert scarce.core.scheduler.num_preempted > 3
    assert scarce.tokens == answers(runtime, submits, 0).tokens


@pytest.mark.parametrize("name", STEP_STATE)
def test_a_field_that_differs_is_noticed(name: str, random_model: Runtime) -> None:
    class Wrong(NotingRuntime):
        def row(self, seq: int) -> Row:
            row = super().row(seq)
            row[name] = row[name][::-1] if isinstance(row[name], list) else row[name] + 1
            return row

    noting = Wrong(random_model)
    core = EngineCore(noting, EngineOptions(SIZES.max_drafts))
    core.handle(Submit(request="a", prompt=[3] * 20, max_tokens=9, ignore_eos=True))
    core.step()
    with pytest.raises(AssertionError, match=f"{name} of a"):
        noting.check(core.scheduler.running)


@pytest.mark.slow  # about two minutes a model
@pytest.mark.parametrize("model", ["random_model", "good_drafts"])
def test_a_thousand_requests_have_the_same_answers_at_any_depth(
    model: str, request: pytest.FixtureRequest
) -> None:
    runtime, submits = request.getfixturevalue(model), _submits(1000, seed=5)
    plain = answers(runtime, submits, 0).tokens
    for drafts, depth in ((0, 1), (3, 0), (3, 1)):
        assert answers(runtime, submits, drafts, depth).tokens == plain
