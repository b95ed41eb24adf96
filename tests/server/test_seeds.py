"""A seed is every prompt's of its request, whatever runs beside it; without one each has one."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from fake_runtime import FakeRuntime, generate
from http_server import running, small_codec

from lostwax.server.engine.loop import EngineCore
from lostwax.server.gateway.app import Settings, create_app
from lostwax.server.gateway.in_process import InProcessEngine

PROMPTS = [[n, 3, n] for n in range(6)]
SAME = [[3, 1, 4]] * 6
TEXTS = ["one", "two", "one", "four"]


def _answers(client: httpx.Client, prompts: list[Any], **given: Any) -> list[list[int]]:
    body = {"prompt": prompts, "max_tokens": 8, "ignore_eos": True, "return_token_ids": True}
    answer = client.post("/v1/completions", json=body | {"temperature": 1.0} | given)
    assert answer.status_code == 200, answer.text
    choices = sorted(answer.json()["choices"], key=lambda choice: choice["index"])
    return [choice["token_ids"] for choice in choices]


@pytest.mark.parametrize("seed", [0, 1234, -3])
def test_each_prompt_of_a_batch_is_sampled_by_the_requests_seed(seed: int) -> None:
    app = create_app(InProcessEngine(EngineCore(FakeRuntime())), small_codec(), Settings())
    with running(app) as url, httpx.Client(base_url=url, timeout=20) as client:
        codec = small_codec()
        as_ids = [codec.encode(text) for text in TEXTS]
        for _ in range(2):
            for prompts, ids in ((PROMPTS, PROMPTS), (SAME, SAME), (TEXTS, as_ids)):
                want = [generate(each, 8, 1.0, _as_int32(seed)) for each in ids]
                assert _answers(client, prompts, seed=seed) == want
        # One seed for all would make them alike.
        assert len(set(map(tuple, _answers(client, SAME)))) > 1
        assert _answers(client, SAME) != _answers(client, SAME)


def _as_int32(seed: int) -> int:
    return (seed + 2**31) % 2**32 - 2**31
