"""`/v1/messages`: Anthropic's shapes by hand. By its client: `tests/clients/test_anthropic.py`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import pytest
from bracket_calls import bracket_reader_of
from fake_runtime import FakeLimits
from http_server import running
from scripted_runtime import CODEC, VOCAB, ScriptedRuntime, spelt
from scripted_server import ScriptedServer

from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.options import EngineOptions
from lostwax.server.formats.encoders import encode_chat
from lostwax.server.gateway import chat_reader
from lostwax.server.gateway.api_keys import digests_of
from lostwax.server.gateway.app import Settings, create_app
from lostwax.server.gateway.in_process import InProcessEngine
from lostwax.server.gateway.messages_answer import MessageAnswer, MessagesError

ADD: dict[str, Any] = {
    "name": "add",
    "description": "Adds.",
    "input_schema": {"type": "object", "properties": {"a": {"type": "integer"}}},
}
TOOLS: list[Any] = [ADD, {"name": "now", "input_schema": {"type": "object"}}]
FUNCTIONS = [
    {"name": "add", "description": "Adds.", "parameters": ADD["input_schema"]},
    {"name": "now", "parameters": {"type": "object"}},
]
ASK: list[Any] = [{"role": "user", "content": "Hi?"}]
CALLS = 'Sure. [[add|{"a": 2}]][[now|{}]]'
THINKS: Any = {"thinking": {"type": "enabled", "budget_tokens": 1024}}
ROOMY = FakeLimits(max_context=4096, page_tokens=16, num_pages=1025, vocab_size=VOCAB)
KEY = "a-key-of-the-tests"


class Server(ScriptedServer):
    """Asks by this interface."""

    def post(self, path: str = "", key: str = KEY, **given: Any) -> httpx.Response:
        body = given if path else {"max_tokens": 200} | given
        body = {name: value for name, value in ({"messages": ASK} | body).items() if value != ()}
        return self.send(f"/v1/messages{path}", body, {"x-api-key": key})

    def ask(self, **given: Any) -> dict[str, Any]:
        answer = self.post(**given)
        assert answer.status_code == 200, answer.text
        msgspec.json.decode(answer.content, type=MessageAnswer)
        return answer.json()

    def stream(self, **given: Any) -> list[dict[str, Any]]:
        """The events, each of the type that its name says."""
        blocks = [
            block.split("\n")
            for block in self.post(stream=True, **given).text.split("\n\n")
            if block
        ]
        events = [json.loads(data.removeprefix("data: ")) for _, data in blocks]
        assert [name.removeprefix("event: ") for name, _ in blocks] == [e["type"] for e in events]
        return events


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    runtime = ScriptedRuntime(limits=ROOMY)
    core = EngineCore(runtime, EngineOptions(prefix_cache=False))
    settings = Settings(model="m", key_digests=digests_of([KEY]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chat_reader, "reader_of", bracket_reader_of)
        with running(create_app(InProcessEngine(core), CODEC, settings)) as url:
            yield Server(runtime, url)


def _prompt(messages: list[dict[str, Any]], **given: Any) -> list[int]:
    return CODEC.encode_pieces(encode_chat("deepseekv32", messages, **given))


def test_an_answer(server: Server) -> None:
    answer = server.says("Hello, wörld!").ask(system="Be terse.")
    told = [{"role": "system", "content": "Be terse."}, *ASK]
    assert server.runtime.prompt == _prompt(told)
    assert answer["content"] == [{"type": "text", "text": "Hello, wörld!"}]
    assert (answer["stop_reason"], answer["stop_sequence"]) == ("end_turn", None)
    assert answer["id"].startswith("msg_")
    num_prompt, num_answer = len(server.runtime.prompt), len("Hello, wörld!".encode()) + 1
    assert (answer["usage"]["input_tokens"], answer["usage"]["output_tokens"]) == (
        num_prompt, num_answer,
    )  # fmt: skip


def test_cached_tokens_are_told_apart() -> None:
    runtime = ScriptedRuntime(limits=ROOMY, script=spelt("Yes."))
    settings = Settings(key_digests=digests_of([KEY]))
    with running(create_app(InProcessEngine(EngineCore(runtime)), CODEC, settings)) as url:
        server = Server(runtime, url)
        given = {"messages": [{"role": "user", "content": "x" * 200}]}
        first, second = server.ask(**given)["usage"], server.ask(**given)["usage"]
        begun = server.stream(**given)[0]["message"]["usage"]
    assert first["cache_read_input_tokens"] == 0
    assert second["cache_read_input_tokens"] > 100
    sums = {use["input_tokens"] + use["cache_read_input_tokens"] for use in (first, second, begun)}
    assert sums == {len(_prompt(given["messages"]))}
    assert begun["output_tokens"] == 0


def test_thinking_text_and_calls_are_blocks(server: Server) -> None:
    answer = server.says("Hm.</think>" + CALLS).ask(tools=TOOLS, **THINKS)
    thought, text, *calls = answer["content"]
    assert thought == {"type": "thinking", "thinking": "Hm.", "signature": ""}
    assert text == {"type": "text", "text": "Sure. "}
    assert [(call["name"], call["input"]) for call in calls] == [("add", {"a": 2}), ("now", {})]
    assert answer["stop_reason"] == "tool_use"
    assert server.runtime.prompt == _prompt(ASK, tools=FUNCTIONS, thinking=True)


def test_a_stream_tells_of_each_block_from_begin_to_end(server: Server) -> None:
    server.says("Hm.</think>" + CALLS)
    events = server.stream(tools=TOOLS, **THINKS)
    kinds = [event["type"] for event in events]
    once = [kind for at, kind in enumerate(kinds) if not at or kinds[at - 1] != kind]
    block = [f"content_block_{part}" for part in ("start", "delta", "stop")]
    assert once == ["message_start", *block * 4, "message_delta", "message_stop"]
    starts = [event for event in events if event["type"] == "content_block_start"]
    assert [event["index"] for event in starts] == [0, 1, 2, 3]
    begun = [event["content_block"] for event in starts]
    assert [each["type"] for each in begun] == ["thinking", "text", "tool_use", "tool_use"]
    assert [each["name"] for each in begun[2:]] == ["add", "now"]
    assert all(each["input"] == {} for each in begun[2:])
    said = ["", "", "", ""]
    for event in events:
        if event["type"] == "content_block_delta":
            (text,) = [value for name, value in event["delta"].items() if name != "type"]
            said[event["index"]] += text
    assert said == ["Hm.", "Sure. ", '{"a": 2}', "{}"]
    last = events[-2]
    assert last["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}
    assert last["usage"] == server.ask(tools=TOOLS, **THINKS)["usage"]


def test_a_round_trip_sends_the_blocks_back_as_they_came(server: Server) -> None:
    given: Any = {"tools": TOOLS, **THINKS}
    first = server.says("Hm.</think>" + CALLS).ask(**given)
    results = [
        {
            "type": "tool_result",
            "tool_use_id": block["id"],
            "content": [{"type": "text", "text": block["name"]}],
            "is_error": False,
        }
        for block in first["content"]
        if block["type"] == "tool_use"
    ]
    messages = [
        *ASK,
        {"role": "assistant", "content": first["content"]},
        {"role": "user", "content": results[::-1]},
    ]
    server.says("So.</think>Five.").ask(messages=messages, **given)
    functions = [{"name": "add", "arguments": '{"a":2}'}, {"name": "now", "arguments": "{}"}]
    told = [
        *ASK,
        {
            "role": "assistant",
            "content": "Sure. ",
            "reasoning_content": "Hm.",
            "tool_calls": [{"function": function} for function in functions],
        },
        {"role": "tool", "content": "add"},
        {"role": "tool", "content": "now"},
    ]
    assert server.runtime.prompt == _prompt(told, tools=FUNCTIONS, thinking=True)


def test_texts_of_several_blocks_are_told_apart(server: Server) -> None:
    blocks = [{"type": "text", "text": text} for text in ("One.", "Two.")]
    marks = [{"type": "ephemeral", "ttl": ttl} for ttl in ("5m", "1h")]
    marked = [b | {"cache_control": m} for b, m in zip(blocks, marks, strict=True)]
    server.says("Yes.").ask(system=marked, messages=[{"role": "user", "content": blocks}])
    told = [{"role": role, "content": "One.\n\nTwo."} for role in ("system", "user")]
    assert server.runtime.prompt == _prompt(told)


@pytest.mark.parametrize("empty", ["", []])
def test_a_turn_without_content_is_a_turn(server: Server, empty: Any) -> None:
    turns: list[Any] = [{"role": role, "content": empty} for role in ("user", "assistant")]
    server.says("Yes.").ask(messages=[*ASK, *turns, *ASK])
    told = [*ASK, *({"role": role, "content": ""} for role in ("user", "assistant")), *ASK]
    assert server.runtime.prompt == _prompt(told)
    assert server.ask(messages=[*ASK, turns[1]])["content"] == [{"type": "text", "text": "Yes."}]
    assert server.runtime.prompt == _prompt(ASK)


def test_a_last_assistants_message_is_gone_on_with(server: Server) -> None:
    answer = server.says("s five.").ask(messages=[*ASK, {"role": "assistant", "content": "It i"}])
    assert answer["content"] == [{"type": "text", "text": "s five."}]
    assert server.runtime.prompt == [*_prompt(ASK), *CODEC.encode("It i")]


def test_why_an_answer_ended(server: Server) -> None:
    server.says("one two")
    assert server.ask(max_tokens=3)["stop_reason"] == "max_tokens"
    answer = server.ask(stop_sequences=["never", " t"])
    assert (answer["stop_reason"], answer["stop_sequence"]) == ("stop_sequence", " t")
    assert answer["content"] == [{"type": "text", "text": "one"}]
    ended = server.stream(stop_sequences=["tw"])[-2]["delta"]
    assert ended == {"stop_reason": "stop_sequence", "stop_sequence": "tw"}
    assert server.stream(max_tokens=3)[-2]["delta"]["stop_reason"] == "max_tokens"


def test_one_call_at_a_time_and_none(server: Server) -> None:
    one = {"type": "auto", "disable_parallel_tool_use": True}
    answer = server.says(CALLS).ask(tools=TOOLS, tool_choice=one)
    assert [block["type"] for block in answer["content"]] == ["text", "tool_use"]
    assert answer["stop_reason"] == "tool_use"
    answer = server.ask(tools=TOOLS, tool_choice={"type": "none"})
    assert answer["content"] == [{"type": "text", "text": CALLS}]
    assert server.runtime.prompt == _prompt(ASK)


def test_a_call_that_breaks_off_is_text(server: Server) -> None:
    answer = server.says('[[add|{"a').ask(tools=TOOLS)
    assert answer["content"] == [{"type": "text", "text": '[[add|{"a'}]
    assert answer["stop_reason"] == "end_turn"
    events = server.stream(tools=TOOLS)
    texts = [event["delta"]["text"] for event in events if "text" in event.get("delta", {})]
    assert "".join(texts) == '[[add|{"a'
    assert events[-2]["delta"]["stop_reason"] == "end_turn"


def test_tokens_are_counted_without_a_run(server: Server) -> None:
    given: Any = {"system": "Be terse.", "tools": TOOLS, **THINKS}
    answer = server.post("/count_tokens", **given)
    told = [{"role": "system", "content": "Be terse."}, *ASK]
    num_tokens = len(_prompt(told, tools=FUNCTIONS, thinking=True))
    assert (answer.status_code, answer.json()) == (200, {"input_tokens": num_tokens})


REDACTED = {"type": "redacted_thinking", "data": ""}
IMAGE = {"type": "image", "source": {}}
USE = {"type": "tool_use", "id": "c", "name": "f", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "c", "content": "1"}
TEXT = {"type": "text", "text": "x"}


def _user(*blocks: Any) -> dict[str, Any]:
    called = {"role": "assistant", "content": [USE]}
    return {"messages": [*ASK, called, {"role": "user", "content": blocks}]}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a kept conversation": ({"thread": {"type": "create"}}, "thread=False"),
    "no bound": ({"max_tokens": None}, "'max_tokens'"),
    "no messages": ({"messages": []}, "'messages'"),
    "an image": ({"messages": [{"role": "user", "content": [IMAGE]}]}, "leave out images"),
    "an image in a result": (
        _user(RESULT | {"content": [IMAGE]}),
        "'messages[2].content[0].content[0].type'",
    ),
    "a user's call": (_user(USE), "no tool_use"),
    "encrypted thinking": (
        {
            "messages": [
                {"role": "assistant", "content": [{"type": "redacted_thinking", "data": ""}]}
            ]
        },
        "encrypted thinking",
    ),
    "a text before results": (_user(TEXT, RESULT), "put the results first"),
    "a result of nothing": (_user(RESULT | {"tool_use_id": "d"}), "not right before it"),
    "two results of a call": (_user(RESULT, RESULT), "two results"),
    "arguments that are no object": (
        {"messages": [{"role": "assistant", "content": [USE | {"input": []}]}]},
        "an object belongs here",
    ),
    "a name without a tool": ({"tool_choice": {"type": "auto", "name": "f"}}, "type 'tool'"),
    "a built-in tool": (
        {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
        "the client runs",
    ),
    "a server of tools": ({"mcp_servers": [{}]}, "client runs all tools"),
    "no thinking in the answer": (
        {"thinking": {"type": "enabled", "budget_tokens": 2000, "display": "omitted"}},
        "whole thinking",
    ),
    "an effort": ({"output_config": {"effort": "low"}}, "one strength"),
    "a format": ({"output_config": {"format": {"type": "json_schema"}}}, "/v1/responses"),
    "an unknown field": ({"n": 2}, "remove it"),
    "too long an answer": ({"max_tokens": 5000}, "maximum context length"),
    "an endless stop": ({"stop_sequences": ["x" * 257]}, "'stop_sequences[0]'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_served_says_what_to_do(server: Server, name: str) -> None:
    given, words = REFUSED[name]
    answer = server.post(**given)
    assert answer.status_code == 400, answer.text
    error = msgspec.json.decode(answer.content, type=MessagesError).error
    assert error.type == "invalid_request_error"
    assert words in error.message


def test_errors_have_the_interfaces_shape_whoever_makes_them(server: Server) -> None:
    found = {
        "authentication_error": server.post(key="wrong"),
        "not_found_error": server.post(model="other"),
        "request_too_large": server.post(system="x" * (17 << 20)),
        "invalid_request_error": httpx.get(
            f"{server.url}/v1/messages", headers={"Authorization": f"Bearer {KEY}"}
        ),
    }
    for kind, answer in found.items():
        error = msgspec.json.decode(answer.content, type=MessagesError).error
        assert error.type == kind, answer.text
        assert int(answer.headers["content-length"]) == len(answer.content)
    assert [each.status_code for each in found.values()] == [401, 404, 413, 405]
    assert found["authentication_error"].headers["www-authenticate"]
    other = httpx.get(f"{server.url}/v1/models").json()["error"]
    assert other["code"] == "invalid_api_key"


def test_an_error_of_a_stream_is_an_event(server: Server, monkeypatch: Any) -> None:
    def fails(self: Any, batch: Any) -> Any:
        raise RuntimeError("no")

    monkeypatch.setattr(ScriptedRuntime, "run", fails)
    (event,) = server.stream()
    told = msgspec.convert(event, MessagesError)
    assert told.error.type == "api_error"
