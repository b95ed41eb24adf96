"""How an answer ends: an end token is a stop wherever it comes, NaN is never a log-probability."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
from fake_runtime import EOS, VOCAB, FakeLimits, FakeRuntime, generate
from step_oracle import StepBatch

from lostwax.ir.contract.step import StepResult
from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.messages import Failed, Output, Submit
from lostwax.server.engine.options import EngineOptions

NAN_BEHIND = 7
"""What comes behind this token is NaN."""


def _run(core: EngineCore, *submits: Submit) -> dict[str, list[Output | Failed]]:
    found: dict[str, list[Output | Failed]] = {submit.request: [] for submit in submits}
    for submit in submits:
        assert core.handle(submit) == []
    while core.has_work:
        for event in core.step():
            found[event.request].append(event)
        core.scheduler.check_integrity()
    pages = core.scheduler.pages
    assert pages.num_free == pages.num_usable
    return found


def _ids(events: list[Output | Failed]) -> list[int]:
    return [score.token for e in events if isinstance(e, Output) for score in e.tokens]


@pytest.mark.parametrize("drafts", [0, 3])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_an_end_token_that_is_the_last_one_allowed_is_a_stop(count: int, drafts: int) -> None:
    prompts = ([n, m, k] for n in range(VOCAB) for m in range(VOCAB) for k in range(2))
    prompt = next(p for p in prompts if _first_end(p, count) == count - 1)
    want = generate(prompt, count)
    core = EngineCore(FakeRuntime(replace(FakeLimits(), max_drafts=3)), EngineOptions(drafts))
    stopping = {
        "end": Submit(request="end", prompt=prompt, max_tokens=count),
        "stop id": Submit(
            request="stop id", prompt=prompt, max_tokens=count, stop_ids=[EOS], ignore_eos=True
        ),
    }
    ignoring = Submit(request="ignored", prompt=prompt, max_tokens=count, ignore_eos=True)
    found = _run(core, *stopping.values(), ignoring)
    assert {name: _ids(events) for name, events in found.items()} == dict.fromkeys(found, want)
    ends = {name: events[-1] for name, events in found.items()}
    finishes = {n: e.finish if isinstance(e, Output) else e.code for n, e in ends.items()}
    assert finishes == {"end": "stop", "stop id": "stop", "ignored": "length"}


def _first_end(prompt: list[int], count: int) -> int:
    tokens = generate(prompt, count)
    return tokens.index(EOS) if EOS in tokens else count


class _Broken(FakeRuntime):
    """Spoils what is said of the token behind NAN_BEHIND."""

    def __init__(self, limits: FakeLimits, spoil: Callable[[StepResult, int], None]) -> None:
        super().__init__(limits)
        self._spoil = spoil

    def run(self, batch: StepBatch) -> StepResult:
        result = super().run(batch)
        for i, row in enumerate(batch.logit_rows):
            if batch.tokens[row] == NAN_BEHIND:
                self._spoil(result, i)
        return result


def _whole_row(result: StepResult, row: int) -> None:
    result.logprobs[row] = math.nan
    if result.target_logprobs:
        result.target_logprobs[row] = math.nan
        result.top_logprobs[row] = [math.nan] * 20


def _rank(result: StepResult, row: int) -> None:
    """An infinite logit: its own log-probability is NaN, all others' are minus infinity."""
    if result.target_logprobs:
        result.target_logprobs[row] = -math.inf
        result.logprobs[row] = -1.0
        result.top_logprobs[row][1] = math.nan


@pytest.mark.parametrize(
    ("given", "spoil"),
    [
        ({"prompt": [1, NAN_BEHIND]}, _whole_row),
        ({"prompt": [1, NAN_BEHIND, 2], "score_prompt": True}, _whole_row),
        ({"prompt": [1, NAN_BEHIND], "top_logprobs": 2}, _rank),
        ({"prompt": [1, NAN_BEHIND, 2], "score_prompt": True, "top_logprobs": 2}, _rank),
    ],
)
def test_nan_ends_its_request_and_is_never_passed_on(
    given: dict[str, object], spoil: Callable[[StepResult, int], None]
) -> None:
    core = EngineCore(_Broken(FakeLimits(), spoil))
    bad = Submit(**({"request": "bad", "max_tokens": 4, "ignore_eos": True} | given))  # pyright: ignore[reportArgumentType]
    good = Submit(request="good", prompt=[3, 1], max_tokens=2, ignore_eos=True)
    found = _run(core, bad, good)
    message = "the model gave NaN for position 1; check the checkpoint"
    assert found["bad"] == [Failed("bad", "model_error", message)]
    assert _ids(found["good"]) == generate([3, 1], 2)


def test_a_nan_that_was_not_asked_for_spoils_nothing() -> None:
    core = EngineCore(_Broken(FakeLimits(), _whole_row))
    prompt = [1, NAN_BEHIND, 2]
    found = _run(core, Submit(request="a", prompt=prompt, max_tokens=1, ignore_eos=True))
    assert _ids(found["a"]) == generate(prompt, 1)
