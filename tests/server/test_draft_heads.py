"""Which head picks drafts: a cheap one where its picks are mostly those of the request's own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from answers import Answers
from fake_runtime import FakeLimits, FakeRuntime, Penalties, generate

from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.messages import Submit


def _submit(name: str, prompt: list[int], max_tokens: int, **values: Any) -> Submit:
    return Submit(request=name, prompt=prompt, max_tokens=max_tokens, ignore_eos=True, **values)


@pytest.mark.parametrize(
    ("wants", "head"),
    [
        ({"top_logprobs": 2}, "pick"),
        ({"top_p": 0.3}, "pick"),
        ({"temperature": 1.0, "top_p": 0.9, "top_k": 16, "min_p": 0.1}, "pick"),
        ({"temperature": 1.5, "top_p": 0.95}, "pick"),
        ({"temperature": 1.1, "top_k": 40}, "sample"),
        ({"temperature": 1.1, "min_p": 0.05}, "sample"),
        ({"temperature": 1.0, "top_p": 0.89}, "sample"),
        ({"temperature": 1.0, "top_k": 15}, "sample"),
        ({"temperature": 1.0, "min_p": 0.11}, "sample"),
        ({"presence_penalty": 0.5}, "sample"),
        ({"logit_bias": {3: 1.0}}, "sample"),
    ],
)
def test_drafts_are_picked_from_all_ids_where_they_are_mostly_right_then(
    wants: dict[str, Any], head: str
) -> None:
    """The nucleus of a draft would keep all answers waiting; it is verified in any case."""
    runtime = FakeRuntime(replace(FakeLimits(), max_drafts=3))
    answers = Answers(EngineCore(runtime))
    answers.submit(_submit("plain", [3, 1], 20), _submit("a", [3, 1], 20, **wants))
    answers.finish()
    heads = [batch.head for batch in runtime.batches if batch.entry == "draft" and batch.logit_rows]
    assert heads[0] == head
    assert answers.core.drafting.num_accepted > 0
    others = {"top_logprobs", "presence_penalty", "logit_bias"}
    sampled = {k: v for k, v in wants.items() if k not in others}
    by = Penalties(1.0, 0.0, wants.get("presence_penalty", 0.0))
    bias = wants.get("logit_bias", {})
    assert answers.ids("a") == generate([3, 1], 20, **sampled, by_tokens=by, bias=bias)
    assert answers.ids("plain") == generate([3, 1], 20)


def test_who_picks_nothing_does_not_say_how_drafts_are_picked() -> None:
    """A long prompt with a narrow nucleus runs on while others begin to answer."""
    runtime = FakeRuntime(replace(FakeLimits(), max_drafts=3))
    answers = Answers(EngineCore(runtime))
    narrow = {"temperature": 1.0, "top_p": 0.1}
    answers.submit(_submit("plain", [3, 1], 20), _submit("long", [5] * 40, 4, **narrow))
    answers.step()
    heads = [batch.head for batch in runtime.batches if batch.entry == "draft" and batch.logit_rows]
    assert heads
    assert set(heads) == {"pick"}
