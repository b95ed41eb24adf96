"""Tools asked over chats and over rendered prompts: one prompt, and one grade of an answer.

The server is lostwax's own, over a runtime that says what a test wrote down.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from call_texts import CLOSE, OPEN, block, invoke, parameter
from command_line import lostwax
from fake_runtime import FakeLimits
from http_server import running
from scripted_runtime import CODEC, VOCAB, ScriptedRuntime
from scripted_server import ScriptedServer

from lostwax.evals.answer import read_answer
from lostwax.evals.request import Request
from lostwax.evals.task import TaskError
from lostwax.evals.tool_chat import tool_chat
from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.options import EngineOptions
from lostwax.server.formats.encoding_v32 import THINK_END
from lostwax.server.gateway.app import Settings, create_app
from lostwax.server.gateway.in_process import InProcessEngine

ROOMY = FakeLimits(max_context=8192, page_tokens=16, num_pages=2049, vocab_size=VOCAB)
ADD: dict[str, Any] = {
    "type": "function",
    "function": {"name": "add", "description": "Adds.", "parameters": {"type": "object"}},
}
NOW: dict[str, Any] = {"name": "now"}
ASKED = {"role": "user", "content": "What is 2 + 3?"}
CALLED = {
    "role": "assistant",
    "content": "I add.",
    "tool_calls": [
        {"function": {"name": "add", "arguments": {"a": 2, "ü": "3", "c": [1.5, None]}}},
        {"type": "function", "function": {"name": "now", "arguments": {}}},
    ],
}
RESULTS = [{"role": "tool", "content": text} for text in ("5", "noon")]
SYSTEM = {"role": "system", "content": "", "tools": [ADD, NOW]}
CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "a question": [SYSTEM, ASKED],
    "instructions beside tools": [SYSTEM | {"content": "Be terse."}, ASKED],
    "a round trip": [SYSTEM, ASKED, CALLED, *RESULTS],
    "two round trips": [SYSTEM, ASKED, CALLED, *RESULTS, ASKED, CALLED, *RESULTS],
}
TWO = [{"name": "add", "arguments": {"a": 2, "b": "x"}}, {"name": "now", "arguments": {}}]
BOTH = invoke("add", parameter("a", "2", False), parameter("b", "x")), invoke("now")
ANSWERS: dict[str, tuple[str, bool]] = {
    "the calls": ("Sure." + block(*BOTH), True),
    "calls alone": (block(*BOTH), True),
    "another order": (block(*BOTH[::-1]), False),
    "one too few": (block(BOTH[0]), False),
    "another argument": (block(invoke("add", parameter("a", "2"), parameter("b", "x"))), False),
    "text": ("Five.", False),
    "nothing": ("", False),
    "a block that is not closed": (f"\n\n{OPEN}\n{BOTH[0]}\n{BOTH[1][:-9]}", False),
    "an argument that is no JSON": (block(invoke("add", parameter("a", "{", False))), False),
    "an unknown tool": (block(invoke("sub")), False),
    "a mark in text": (f"Write {CLOSE} at the end.", False),
}
"""What a model says, and whether it is what the task wants."""


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedServer]:
    runtime = ScriptedRuntime(limits=ROOMY)
    core = EngineCore(runtime, EngineOptions(prefix_cache=False))
    with running(create_app(InProcessEngine(core), CODEC, Settings(model="m"))) as url:
        yield ScriptedServer(runtime, url)


class Evaluation:
    """Asks one example over an endpoint."""

    def __init__(self, server: ScriptedServer, folder: Path, capsys: Any) -> None:
        self._server = server
        self._folder = folder
        self._capsys = capsys
        self._num_runs = 0

    def sample(self, endpoint: str, said: str, **example: Any) -> dict[str, Any]:
        """The sample of what the model says."""
        self._server.says(said)
        self._num_runs += 1
        path, out = self._folder / "t.jsonl", self._folder / f"{self._num_runs}"
        path.write_text(json.dumps({"id": "t", "kind": "tools", **example}))
        asked = ("--url", self._server.url, "--endpoint", endpoint, "--out", out)
        status, _, err = lostwax(self._capsys, "eval", path, *asked, "--json")
        assert status == 0, err
        return json.loads((out / "t.samples.jsonl").read_text().splitlines()[1])


@pytest.fixture
def evaluation(
    server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Evaluation:
    return Evaluation(server, tmp_path, capsys)


@pytest.mark.parametrize("thinking", [False, True])
@pytest.mark.parametrize("name", CONVERSATIONS)
def test_both_endpoints_ask_by_the_same_prompt(
    server: ScriptedServer, evaluation: Evaluation, name: str, *, thinking: bool
) -> None:
    messages = CONVERSATIONS[name]
    if thinking:
        thought = {"reasoning_content": "Hm."}
        messages = [m | thought if m["role"] == "assistant" else m for m in messages]
    example = {"messages": messages, "thinking": thinking, "reference": {"calls": []}}
    prompts: list[list[int]] = []
    for endpoint in ("chat", "completions"):
        evaluation.sample(endpoint, f"Hm.{THINK_END}Five." if thinking else "Five.", **example)
        prompts.append(server.runtime.prompt)
    assert prompts[0] == prompts[1]


@pytest.mark.parametrize("thinking", [False, True])
@pytest.mark.parametrize("name", ANSWERS)
def test_both_endpoints_grade_an_answer_alike(
    evaluation: Evaluation, name: str, *, thinking: bool
) -> None:
    said, is_right = ANSWERS[name]
    said = f"Hm.{THINK_END}{said}" if thinking else said
    example = {
        "messages": CONVERSATIONS["a question"],
        "thinking": thinking,
        "reference": {"calls": TWO},
        "completion": said,
    }
    chat, rendered = (
        evaluation.sample(endpoint, said, **example) for endpoint in ("chat", "completions")
    )
    assert chat["grade"]["correct"] is rendered["grade"]["correct"] is is_right
    if is_right:
        assert chat["is_exact"] is rendered["is_exact"] is True
        assert chat["answer"] == rendered["answer"] | {"finish": "tool_calls"}


@pytest.mark.parametrize("said", [f"{OPEN} is a mark.", block(invoke("add", "x"))])
def test_a_mark_is_no_refusal_of_tools(evaluation: Evaluation, said: str) -> None:
    example = {"messages": CONVERSATIONS["a question"], "reference": {"calls": []}}
    for endpoint in ("chat", "completions"):
        sample = evaluation.sample(endpoint, said, **example)
        assert sample["grade"]["reason"] == "malformed", endpoint


def test_reasoning_that_never_ends_is_malformed(evaluation: Evaluation) -> None:
    example = {
        "messages": CONVERSATIONS["a question"],
        "thinking": True,
        "reference": {"calls": []},
    }
    for endpoint in ("chat", "completions"):
        sample = evaluation.sample(endpoint, "Hm.", **example)
        assert sample["grade"]["reason"] == "malformed", endpoint


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ("{", "no JSON"),
        ("[1]", "no JSON object"),
        ('{"a": 1, "a": 2}', "twice"),
        ("NaN", "no number"),
    ],
)
def test_arguments_of_any_server_are_read_strictly(arguments: str, why: str) -> None:
    called = {"id": "c", "function": {"name": "f", "arguments": arguments}}
    message = {"role": "assistant", "content": None, "tool_calls": [called]}
    body = msgspec.json.encode({"choices": [{"message": message, "finish_reason": "tool_calls"}]})
    answer, _ = read_answer(Request("/chat/completions", {"tools": []}), body)
    assert answer.malformed is not None
    assert why in answer.malformed


def test_a_request_is_what_openais_clients_send() -> None:
    asked = tool_chat("t", CONVERSATIONS["two round trips"])
    assert asked["tools"] == [ADD, {"type": "function", "function": NOW}]
    ids = [call["id"] for m in asked["messages"] for call in m.get("tool_calls", ())]
    assert ids == [f"call_{n}" for n in range(4)]
    told = [m["tool_call_id"] for m in asked["messages"] if m["role"] == "tool"]
    assert told == ids
    arguments = asked["messages"][1]["tool_calls"][0]["function"]["arguments"]
    assert json.loads(arguments) == {"a": 2, "ü": "3", "c": [1.5, None]}
    assert asked["messages"][0] == ASKED, "a system message that held tools alone is none"


@pytest.mark.parametrize(
    ("messages", "what"),
    [
        ([{"role": "developer", "content": "x", "tools": [ADD]}], "tools in a developer message"),
        ([SYSTEM | {"response_format": {}}, ASKED], "response_format in a system message"),
        ([ASKED, SYSTEM, ASKED], "tools in a system message"),
    ],
)
def test_what_has_no_place_in_chats_is_refused(messages: list[Any], what: str) -> None:
    with pytest.raises(TaskError, match=f"t has {what}.*leave out --endpoint chat"):
        tool_chat("t", messages)
