"""Penalties, `logit_bias`, `min_tokens` in the engine: whose they are, also behind a preemption.

The fake runtime adds what the state's contract says; an answer alone is written by hand.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from fake_runtime import EOS, VOCAB, FakeLimits, FakeRuntime, Penalties, generate

from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.messages import Failed, Submit
from lostwax.server.engine.options import EngineOptions

PROMPT = [(5 * i) % VOCAB for i in range(11)]
WARM: dict[str, Any] = {"temperature": 1.0, "seed": 5}
BIAS = {3: 4.0, 7: 3.5, 9: -100.0}
ASKED: dict[str, dict[str, Any]] = {
    "greedy with a bias": {"logit_bias": BIAS},
    "warm with a bias": WARM | {"logit_bias": BIAS, "top_p": 0.9},
    "late": {"logit_bias": {EOS: 9.0}, "min_tokens": 4, "held_ids": [EOS]},
    "late and warm": WARM | {"min_tokens": 6, "held_ids": [EOS, 3, 4, 5, 6, 7]},
    "rare": {"repetition_penalty": 1.8, "frequency_penalty": 0.7, "presence_penalty": 0.5},
    "often": WARM | {"presence_penalty": -2.0, "frequency_penalty": -2.0, "temperature": 0.5},
    "all at once": WARM
    | {
        "frequency_penalty": 1.5,
        "logit_bias": BIAS,
        "min_tokens": 3,
        "held_ids": [EOS],
        "top_k": 9,
    },
    "greedy": {},
    "warm": WARM,
}


def wanted(max_tokens: int, asked: dict[str, Any]) -> list[int]:
    """The answer of a request alone, up to its end."""
    tokens = generate(
        PROMPT,
        max_tokens,
        asked.get("temperature", 0.0),
        asked.get("seed", 0),
        asked.get("top_p", 1.0),
        bias=asked.get("logit_bias", {}),
        min_tokens=asked.get("min_tokens", 0),
        ends=asked.get("held_ids", ()),
        top_k=asked.get("top_k", 0),
        by_tokens=Penalties(
            asked.get("repetition_penalty", 1.0),
            asked.get("frequency_penalty", 0.0),
            asked.get("presence_penalty", 0.0),
        ),
    )
    return tokens[: tokens.index(EOS) + 1] if EOS in tokens else tokens


def answers(core: EngineCore, max_tokens: int, names: list[str]) -> dict[str, list[int]]:
    """What requests that run together answer."""
    found: dict[str, list[int]] = {name: [] for name in names}
    for name in names:
        submit = Submit(request=name, prompt=PROMPT, max_tokens=max_tokens, **ASKED[name])
        assert core.handle(submit) == []
    while core.has_work:
        for event in core.step():
            assert not isinstance(event, Failed), event
            found[event.request] += [score.token for score in event.tokens]
    return found


@pytest.mark.parametrize("drafts", [0, 1, 3])
def test_a_bias_and_a_penalty_are_a_requests_own(drafts: int) -> None:
    limits = replace(FakeLimits(), max_drafts=3, max_reqs=9, num_pages=97)
    found = answers(EngineCore(FakeRuntime(limits), EngineOptions(drafts)), 12, [*ASKED])
    assert found == {name: wanted(12, asked) for name, asked in ASKED.items()}
    assert found["greedy with a bias"] != found["greedy"]
    assert found["warm with a bias"] != found["warm"]
    assert found["rare"] != found["greedy"]
    assert found["often"] != found["warm"]
    assert EOS in found["late"]
    assert found["late"].index(EOS) == 4, "it ends as soon as it may"


@pytest.mark.parametrize("drafts", [0, 3])
def test_biases_and_counts_outlive_a_preemption(drafts: int) -> None:
    limits = replace(FakeLimits(), max_drafts=3, max_reqs=9, num_pages=22)
    core = EngineCore(FakeRuntime(limits), EngineOptions(drafts, prefix_cache=False))
    found = answers(core, 12, [*ASKED])
    assert core.scheduler.num_preempted > 0
    assert found == {name: wanted(12, asked) for name, asked in ASKED.items()}


def test_who_asks_for_nothing_keeps_the_cheap_head_and_so_does_who_may_end() -> None:
    runtime = FakeRuntime()
    core = EngineCore(runtime)
    answers(core, 8, ["greedy", "warm"])
    assert {batch.head for batch in runtime.batches} == {"pick"}
    runtime.batches.clear()
    answers(core, 12, ["late and warm"])
    heads = [batch.head for batch in runtime.batches if batch.logit_rows]
    assert heads[:6] == ["sample"] * 6
    assert set(heads[7:]) == {"pick"}
