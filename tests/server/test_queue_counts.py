"""What a request counts in the queue: its prompts as often as they run, and what it asks for."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest
from fake_runtime import FakeRuntime
from scripted_runtime import CODEC, ScriptedRuntime

from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.messages import Output
from lostwax.server.engine.options import EngineOptions
from lostwax.server.gateway.engine_client import MAX_IN_A_ROW, Mailbox
from lostwax.server.gateway.prepare import prepare
from lostwax.server.gateway.prepared import Job, Prepared, Route

INFO = EngineCore(ScriptedRuntime()).info
PROMPT = [1] * 40


def _prepared(route: Route, body: dict[str, Any], *, shares: bool = True) -> Prepared:
    info = msgspec.structs.replace(INFO, shares_prompts=shares)
    job = Job(route=route, model="fake", info=info, max_tokens=4096)
    found = prepare(json.dumps(body).encode(), job, CODEC)
    assert isinstance(found, Prepared)
    return found


@pytest.mark.parametrize(
    ("more", "shares", "runs"),
    [
        ({}, True, 1),
        ({"echo": True}, True, 1),
        ({"echo": True, "logprobs": 0}, True, 5),
        ({}, False, 5),
    ],
)
def test_a_prompt_counts_as_often_as_it_is_run(
    more: dict[str, Any], shares: bool, runs: int
) -> None:
    body = {"prompt": PROMPT, "max_tokens": 3, "n": 5} | more
    assert _prepared("completions", body, shares=shares).num_tokens == runs * 40 + 5 * 3


@pytest.mark.parametrize("prefix_cache", [True, False])
def test_the_engine_says_whether_it_runs_a_prompt_once(prefix_cache: bool) -> None:
    core = EngineCore(FakeRuntime(), EngineOptions(prefix_cache=prefix_cache))
    assert core.info.shares_prompts == prefix_cache


def test_a_chat_counts_what_it_says_that_it_wants() -> None:
    body = {"messages": [{"role": "user", "content": "a"}]}
    silent = _prepared("chat", body)
    num_prompt = len(silent.submits[0].prompt)
    assert silent.num_tokens == num_prompt
    assert _prepared("chat", body | {"max_tokens": 9}).num_tokens == num_prompt + 9
    assert _prepared("chat", body | {"min_tokens": 7}).num_tokens == num_prompt + 7
    assert _prepared("chat", body | {"ignore_eos": True}).num_tokens == INFO.max_context


def test_whoever_reads_much_lets_others_have_their_turn() -> None:
    """Who did not read for long left thousands of parts: the loop takes some at a time."""
    turns: list[int] = []
    num_read = 0

    async def other() -> None:
        while True:
            turns.append(num_read)
            await asyncio.sleep(0)

    async def read() -> None:
        nonlocal num_read
        box = Mailbox()
        for _ in range(10 * MAX_IN_A_ROW):
            box.put(Output(request="r"))
        watching = asyncio.create_task(other())
        for _ in range(10 * MAX_IN_A_ROW):
            await box.get()
            num_read += 1
        watching.cancel()

    asyncio.run(read())
    assert turns == [i * MAX_IN_A_ROW for i in range(1, 10)]
