"""Ollama's `/api/chat` and `/api/tags` by plain requests, with answers written beforehand. By its
client: `tests/clients/test_ollama.py`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import pytest
from call_texts import block, invoke, parameter
from fake_runtime import FakeLimits
from http_server import running
from scripted_runtime import CODEC, VOCAB, ScriptedRuntime, spelt
from scripted_server import ScriptedServer

from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.options import EngineOptions
from lostwax.server.formats.encoders import encode_chat
from lostwax.server.gateway.api_keys import digests_of
from lostwax.server.gateway.app import Settings, create_app
from lostwax.server.gateway.in_process import InProcessEngine
from lostwax.server.gateway.ollama_answer import (
    OllamaAnswer,
    OllamaError,
    OllamaModels,
    OllamaPart,
)
from lostwax.server.gateway.settings import Build

ADD: dict[str, Any] = {
    "name": "add",
    "description": "Adds.",
    "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
}
NOW: dict[str, Any] = {"name": "now", "parameters": {"type": "object"}}
TOOLS = [{"type": "function", "function": each} for each in (ADD, NOW)]
ASK: list[Any] = [{"role": "user", "content": "Hi?"}]
CALLS = "Sure." + block(invoke("add", parameter("a", "2", False)), invoke("now"))
LINES = block(invoke("add", parameter("a", "[1,\r\n 2]", False)))
ROOMY = FakeLimits(max_context=4096, page_tokens=16, num_pages=1025, vocab_size=VOCAB)
KEY = "a-key-of-the-tests"


class Server(ScriptedServer):
    """Asks by this interface."""

    def post(self, key: str = KEY, **given: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {key}"}
        body = {"messages": ASK} | given
        return self.send("/api/chat", body, headers)

    def ask(self, **given: Any) -> dict[str, Any]:
        answer = self.post(stream=False, **given)
        assert answer.status_code == 200, answer.text
        msgspec.json.decode(answer.content, type=OllamaAnswer)
        return answer.json()

    def stream(self, **given: Any) -> list[dict[str, Any]]:
        """The lines, each of the shape of its place."""
        answer = self.post(**given)
        assert answer.headers["content-type"] == "application/x-ndjson"
        *parts, last = answer.text.splitlines()  # as Ollama's client: at all that Unicode knows
        assert answer.text == "".join(line + "\n" for line in (*parts, last))
        for part in parts:
            assert msgspec.json.decode(part, type=OllamaPart).done is False
        assert msgspec.json.decode(last, type=OllamaAnswer).done is True
        return [json.loads(line) for line in (*parts, last)]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    runtime = ScriptedRuntime(limits=ROOMY)
    core = EngineCore(runtime, EngineOptions(prefix_cache=False))
    build = Build(schema=1, digest="0" * 64, target="cpu")
    settings = Settings(model="m", build=build, key_digests=digests_of([KEY]))
    with running(create_app(InProcessEngine(core), CODEC, settings)) as url:
        yield Server(runtime, url)


def _prompt(messages: list[dict[str, Any]], **given: Any) -> list[int]:
    return CODEC.encode_pieces(encode_chat("deepseekv32", messages, **given))


def test_an_answer(server: Server) -> None:
    told = [{"role": "system", "content": "Be terse."}, *ASK]
    answer = server.says("Hello, wörld!").ask(model="m", messages=told)
    assert server.runtime.prompt == _prompt(told)
    assert answer["message"] == {"role": "assistant", "content": "Hello, wörld!"}
    assert (answer["model"], answer["done"], answer["done_reason"]) == ("m", True, "stop")
    num_prompt, num_answer = len(server.runtime.prompt), len("Hello, wörld!".encode()) + 1
    assert (answer["prompt_eval_count"], answer["eval_count"]) == (num_prompt, num_answer)
    parts = answer["prompt_eval_duration"] + answer["eval_duration"]
    assert answer["total_duration"] == parts > answer["prompt_eval_duration"] > 0


def test_it_streams_unless_it_is_told_not_to(server: Server) -> None:
    *parts, last = server.says("Hello, wörld!").stream()
    said = [part["message"]["content"] for part in parts]
    assert "".join(said) == "Hello, wörld!"
    assert len(said) > 10
    assert last["message"]["content"] == ""
    whole = server.ask()
    timeless = {"model", "done", "done_reason", "prompt_eval_count", "eval_count"}
    assert {name: last[name] for name in timeless} == {name: whole[name] for name in timeless}


def test_arguments_of_many_lines_stand_in_one(server: Server) -> None:
    *_, calls, _ = server.says(LINES).stream(tools=TOOLS)
    (call,) = calls["message"]["tool_calls"]
    assert call["function"]["arguments"] == {"a": [1, 2]}


def test_no_text_breaks_a_line(server: Server) -> None:
    said = "a\u2028b\x85c\u2029d"
    *parts, _ = server.says(said).stream()
    assert "".join(part["message"]["content"] for part in parts) == said


def test_calls_come_whole(server: Server) -> None:
    given: dict[str, Any] = {"tools": TOOLS, "think": True}
    server.says(f"Hm.</think>{CALLS}")
    message = server.ask(**given)["message"]
    assert server.runtime.prompt == _prompt(ASK, tools=[ADD, NOW], thinking=True)
    assert (message["thinking"], message["content"]) == ("Hm.", "Sure.")
    functions = [call["function"] for call in message["tool_calls"]]
    assert functions == [
        {"index": 0, "name": "add", "arguments": {"a": 2}},
        {"index": 1, "name": "now", "arguments": {}},
    ]
    *parts, last = server.stream(**given)
    assert last["done_reason"] == "stop"
    turns = [part["message"] for part in parts]
    assert "".join(turn.get("thinking", "") for turn in turns) == "Hm."
    assert "".join(turn["content"] for turn in turns) == "Sure."
    called = [turn["tool_calls"] for turn in turns if "tool_calls" in turn]
    assert [[call["function"] for call in calls] for calls in called] == [
        functions[:1],
        functions[1:],
    ]


def test_a_call_that_breaks_off_is_text(server: Server) -> None:
    broken = CALLS.partition("</")[0]
    server.says(broken)
    for turns in (
        [server.ask(tools=TOOLS)["message"]],
        [part["message"] for part in server.stream(tools=TOOLS)],
    ):
        assert "".join(turn["content"] for turn in turns) == broken
        assert not any("tool_calls" in turn for turn in turns)


@pytest.mark.parametrize(
    "results",
    [
        [{"content": "5"}, {"content": "noon"}],
        [{"tool_name": "now", "content": "noon"}, {"tool_name": "add", "content": "5"}],
    ],
)
def test_results_belong_to_calls_by_name_or_by_order(
    server: Server, results: list[dict[str, Any]]
) -> None:
    message = server.says(f"Hm.</think>{CALLS}").ask(tools=TOOLS, think=True)["message"]
    turns = [*ASK, message, *({"role": "tool", **result} for result in results)]
    answer = server.says("So.</think>Five.").ask(messages=turns, tools=TOOLS, think=True)
    assert answer["message"]["content"] == "Five."
    functions = [("add", '{"a":2}'), ("now", "{}")]
    told = [
        *ASK,
        {
            "role": "assistant",
            "content": "Sure.",
            "reasoning_content": "Hm.",
            "tool_calls": [
                {"function": {"name": name, "arguments": arguments}}
                for name, arguments in functions
            ],
        },
        {"role": "tool", "content": "5"},
        {"role": "tool", "content": "noon"},
    ]
    assert server.runtime.prompt == _prompt(told, tools=[ADD, NOW], thinking=True)


def test_a_result_is_of_the_last_turns_call_though_one_before_has_none(server: Server) -> None:
    turns = [*ASK, _called("now"), *ASK, _called("add"), {"role": "tool", "content": "5"}]
    server.says("Five.").ask(messages=turns, tools=TOOLS)
    calls: list[Any] = [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"function": {"name": name, "arguments": "{}"}}],
        }
        for name in ("now", "add")
    ]
    told = [*ASK, calls[0], *ASK, calls[1], {"role": "tool", "content": "5"}]
    assert server.runtime.prompt == _prompt(told, tools=[ADD, NOW])


def test_an_assistants_message_at_the_end_is_gone_on_with(server: Server) -> None:
    turns = [*ASK, {"role": "assistant", "content": "Well, "}]
    assert server.says("hello.").ask(messages=turns)["message"]["content"] == "hello."
    assert CODEC.decode(server.runtime.prompt).endswith("Well, ")


def test_options_reach_the_engine(server: Server) -> None:
    sampled = {"temperature": 1, "top_p": 0.25, "top_k": 40, "min_p": 0.125, "num_ctx": 4096}
    server.says("Yes.").ask(options=sampled)
    assert server.runtime.narrowed == [(40, 0.25, 0.125)]
    server.says("one, two, three")
    for options, said, reason in (
        ({"num_predict": 3}, "one", "length"),
        ({"stop": ["never", ", t"]}, "one", "stop"),
        ({"num_predict": -1}, "one, two, three", "stop"),
    ):
        answer = server.ask(options=options, keep_alive="5m", think=False, format="")
        assert (answer["message"]["content"], answer["done_reason"]) == (said, reason)


def test_the_model_is_listed(server: Server) -> None:
    headers = {"Authorization": f"Bearer {KEY}"}
    answer = httpx.get(f"{server.url}/api/tags", headers=headers)
    (model,) = msgspec.json.decode(answer.content, type=OllamaModels).models
    assert (model.name, model.model, model.digest) == ("m", "m", "0" * 64)


def _called(*names: str) -> dict[str, Any]:
    calls = [{"function": {"name": name, "arguments": {}}} for name in names]
    return {"role": "assistant", "content": "", "tool_calls": calls}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "an image": ({"messages": [ASK[0] | {"images": ["aGk="]}]}, "images.*text only"),
    "an unknown option": ({"options": {"beams": 2}}, r"options.beams.*remove it"),
    "mirostat": ({"options": {"mirostat": 2}}, r"options.mirostat.*temperature"),
    "a window of repetitions": ({"options": {"repeat_last_n": 64}}, r"options.repeat_last_n"),
    "kept tokens": ({"options": {"num_keep": 4}}, "options.num_keep.*nothing is cut"),
    "layers on a GPU": ({"options": {"num_gpu": 1}}, "options.num_gpu.*compile"),
    "more context": ({"options": {"num_ctx": 4097}}, "options.num_ctx.*is 4096 tokens"),
    "too long an answer": ({"options": {"num_predict": 5000}}, "maximum context length"),
    "log-probabilities": ({"logprobs": True}, "logprobs.*/v1/chat/completions"),
    "a format of another kind": ({"format": "yaml"}, "'format'.*JSON schema"),
    "a format without an engine for it": ({"format": "json"}, "grammars need"),
    "a result of nothing": (
        {"messages": [*ASK, {"role": "tool", "content": "1"}]},
        "a result is of no call",
    ),
    "a result of another tool": (
        {"messages": [*ASK, _called("f"), {"role": "tool", "tool_name": "g", "content": "1"}]},
        "a result is of no call",
    ),
    "a missing result": (
        {"messages": [*ASK, _called("f", "g"), {"role": "tool", "content": "1"}]},
        "has no result",
    ),
    "a user's calls": ({"messages": [_called("f") | ASK[0]]}, "a user message has no tool_calls"),
    "no message": ({"messages": []}, "messages"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_not_served_says_what_to_do(server: Server, name: str, stream: bool) -> None:
    given, words = REFUSED[name]
    answer = server.post(stream=stream, **given)
    assert answer.status_code == 400, answer.text
    error = msgspec.json.decode(answer.content, type=OllamaError).error
    assert re.search(words, error), error


def test_errors_have_its_shape_whoever_makes_them(server: Server) -> None:
    found = [
        server.post(key="wrong"),
        server.post(model="other"),
        httpx.post(f"{server.url}/api/show", headers={"Authorization": f"Bearer {KEY}"}),
    ]
    assert [answer.status_code for answer in found] == [401, 404, 404]
    for answer in found:
        assert msgspec.json.decode(answer.content, type=OllamaError).error
        assert int(answer.headers["content-length"]) == len(answer.content)


def test_an_error_of_a_stream_is_its_last_line(server: Server, monkeypatch: Any) -> None:
    def fails(self: Any, batch: Any) -> Any:
        raise RuntimeError("no")

    monkeypatch.setattr(ScriptedRuntime, "run", fails)
    (line,) = server.post().content.splitlines()
    assert "the engine failed" in msgspec.json.decode(line, type=OllamaError).error


def test_text_that_spells_a_mark_stays_text(server: Server) -> None:
    server.runtime.script = spelt("</think> closes")
    assert server.ask()["message"]["content"] == "</think> closes"
