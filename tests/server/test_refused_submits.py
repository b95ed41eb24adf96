"""What the engine refuses of who does not ask through the gateway: each bound, on both sides."""

from __future__ import annotations

import pytest
from fake_runtime import VOCAB, FakeRuntime, generate

from lostwax.ir.contract.step import MAX_RANKED
from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.messages import Failed, Output, Submit

MOST = 64
FITS = {
    "the whole context": Submit(request="a", prompt=[1] * 60, max_tokens=4, ignore_eos=True),
    "a prompt of the whole context": Submit(request="a", prompt=[1] * MOST, max_tokens=0),
    "the last id": Submit(request="a", prompt=[0, VOCAB - 1], max_tokens=1),
    "all ranks": Submit(request="a", prompt=[1], max_tokens=1, top_logprobs=MAX_RANKED),
}
EXCEEDS = {
    "the context": (Submit(request="a", prompt=[1] * 60, max_tokens=5), "context_length_exceeded"),
    "the ids": (Submit(request="a", prompt=[VOCAB], max_tokens=1), "invalid_value"),
    "below the ids": (Submit(request="a", prompt=[-1], max_tokens=1), "invalid_value"),
    "the ranks": (
        Submit(request="a", prompt=[1], max_tokens=1, top_logprobs=MAX_RANKED + 1),
        "invalid_value",
    ),
    "no prompt": (Submit(request="a", prompt=[], max_tokens=1), "invalid_value"),
    "no time": (Submit(request="a", prompt=[1], max_tokens=1, timeout_s=0.0), "invalid_value"),
}


@pytest.mark.parametrize("submit", FITS.values(), ids=FITS)
def test_what_just_fits_is_answered(submit: Submit) -> None:
    core = EngineCore(FakeRuntime())
    assert core.info.max_context == MOST
    assert core.handle(submit) == []
    tokens: list[int] = []
    while core.has_work:
        for event in core.step():
            assert isinstance(event, Output)
            tokens += [score.token for score in event.tokens]
    assert tokens == generate(submit.prompt, submit.max_tokens)


@pytest.mark.parametrize(("submit", "code"), EXCEEDS.values(), ids=EXCEEDS)
def test_what_exceeds_a_bound_is_refused_and_leaves_nothing(submit: Submit, code: str) -> None:
    core = EngineCore(FakeRuntime())
    (refused,) = core.handle(submit)
    assert isinstance(refused, Failed)
    assert refused.code == code
    assert not core.has_work


def test_a_name_that_runs_is_taken() -> None:
    core = EngineCore(FakeRuntime())
    submit = Submit(request="a", prompt=[1], max_tokens=1)
    assert core.handle(submit) == []
    (refused,) = core.handle(submit)
    assert isinstance(refused, Failed)
    assert refused.code == "invalid_value"
