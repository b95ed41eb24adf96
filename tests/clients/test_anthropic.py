"""Anthropic's client against `/v1/messages`: chats, streams, tools, thinking, counts, errors."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from call_texts import block, invoke, parameter
from scripted_server import ScriptedServer
from tiny_tools import ANSWER, CALLED, FUNCTIONS, QUESTION, RESULT

from lostwax.server.gateway import stream as streams

anthropic: Any = pytest.importorskip("anthropic", reason="it comes with `.ci/slow clients`")
pytestmark = pytest.mark.clients

ADD: dict[str, Any] = {
    "name": "add",
    "description": "Adds.",
    "input_schema": {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
    },
}
CALL = block(invoke("add", parameter("a", "2", False), parameter("b", "3", False)))
ASK: list[Any] = [{"role": "user", "content": "2 + 3?"}]
THINKS: Any = {"thinking": {"type": "enabled", "budget_tokens": 1024}}
GREEDY: Any = {"extra_body": {"temperature": 0}}
"""Its methods have no such parameter since version 2; the server takes it."""
ASKED: dict[str, Any] = {"model": "m", "max_tokens": 400, "messages": ASK}


def _client(server: ScriptedServer) -> Any:
    return anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0)


def test_a_chat_and_its_count(scripted: ScriptedServer) -> None:
    client = _client(scripted.says("Five."))
    answer = client.messages.create(system="Be terse.", **ASKED)
    assert [(each.type, each.text) for each in answer.content] == [("text", "Five.")]
    assert (answer.stop_reason, answer.model) == ("end_turn", "m")
    counted = client.messages.count_tokens(model="m", messages=ASK, system="Be terse.")
    assert counted.input_tokens == answer.usage.input_tokens > 0
    assert [model.id for model in client.models.list().data] == ["m"]


def test_the_streaming_helper_tells_of_thinking_text_and_calls(scripted: ScriptedServer) -> None:
    client = _client(scripted.says(f"Hm.</think>Sure.{CALL}"))
    asked = {**ASKED, "tools": [ADD], **THINKS}
    kinds, text, thought, arguments = set[str](), "", "", ""
    with client.messages.stream(**asked) as events:
        for event in events:
            kinds.add(event.type)
            text += event.text if event.type == "text" else ""
            thought += event.thinking if event.type == "thinking" else ""
            arguments += event.partial_json if event.type == "input_json" else ""
        last = events.get_final_message()
    assert {"message_start", "content_block_start", "content_block_stop", "message_stop"} <= kinds
    assert (text, thought, json.loads(arguments)) == ("Sure.", "Hm.", {"a": 2, "b": 3})
    whole = client.messages.create(**asked)
    assert [each.type for each in whole.content] == ["thinking", "text", "tool_use"]
    assert [each.to_dict() for each in last.content[:2]] == [
        each.to_dict() for each in whole.content[:2]
    ]
    assert last.content[2].input == whole.content[2].input == {"a": 2, "b": 3}
    assert last.stop_reason == whole.stop_reason == "tool_use"
    assert last.usage.output_tokens == whole.usage.output_tokens
    counted = client.messages.count_tokens(model="m", messages=ASK, tools=[ADD], **THINKS)
    assert counted.input_tokens == whole.usage.input_tokens


def test_signs_of_life_are_no_news(
    scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "QUIET_S", 0.001)
    call = block(invoke("add", parameter("a", "long " * 200)))
    client = _client(scripted.says(f"Sure.{call}"))
    with client.messages.stream(**ASKED | {"max_tokens": 2000}, tools=[ADD]) as events:
        last = events.get_final_message()
    raw = client.messages.with_raw_response.create(
        **ASKED | {"max_tokens": 2000}, tools=[ADD], stream=True
    )
    assert "event: ping" in raw.http_response.read().decode()
    assert [each.type for each in last.content] == ["text", "tool_use"]
    assert last.content[1].input == {"a": "long " * 200}


def test_blocks_go_back_as_they_came(scripted: ScriptedServer) -> None:
    client = _client(scripted.says(f"Hm.</think>Sure.{CALL}"))
    asked = {"model": "m", "max_tokens": 400, "tools": [ADD], **THINKS}
    first = client.messages.create(messages=ASK, **asked)
    (call,) = [each for each in first.content if each.type == "tool_use"]
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "5"}
    turns = [
        *ASK,
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": [result]},
    ]
    scripted.says("So.</think>Five.")
    last = client.messages.create(messages=turns, **asked)
    assert [each.type for each in last.content] == ["thinking", "text"]
    assert last.content[1].text == "Five."


def test_its_runner_of_tools_runs_to_an_answer(scripted: ScriptedServer) -> None:
    def add(a: int, b: int) -> str:
        """Adds.

        Args:
            a: one
            b: the other
        """
        scripted.says("Five.")
        return str(a + b)

    scripted.says(f"Sure.{CALL}")
    run = _client(scripted).beta.messages.tool_runner
    given = {"model": "m", "max_tokens": 400, "messages": ASK, "tools": [anthropic.beta_tool(add)]}
    with pytest.raises(anthropic.BadRequestError, match=r"'thread'.*thread=False"):
        list(run(**given))  # it would keep the conversation on the server
    runner = run(thread=False, **given)
    texts = [[each.text for each in message.content if each.type == "text"] for message in runner]
    assert texts == [["Sure."], ["Five."]]


@pytest.mark.parametrize("end", [parameter("path", "/tmp/b"), "", "a text"])
def test_a_call_that_breaks_is_no_call_in_streams_either(
    scripted: ScriptedServer, end: str
) -> None:
    """Its client completes arguments that are cut, and its runner runs each call of a stream."""
    ran = list[tuple[str, str]]()

    def look(path: str) -> str:
        """Looks."""
        ran.append(("look", path))
        scripted.says("Done.")
        return "ok"

    def delete(path: str = "/") -> str:
        """Deletes."""
        ran.append(("delete", path))
        return "ok"

    text = block(
        invoke("look", parameter("path", "/tmp/a")),
        invoke("delete", parameter("path", "/tmp/a"), end)
        if end
        else '<｜DSML｜invoke name="delete">',  # noqa: RUF001
    )
    client = _client(scripted.says(text))
    tools = [anthropic.beta_tool(each) for each in (look, delete)]
    asked = ASKED | {"max_tokens": 2000}
    offered = {"tools": [tool.to_dict() for tool in tools]}
    whole = client.messages.create(**asked, **offered)
    with client.messages.stream(**asked, **offered) as stream:
        streamed = stream.get_final_message()
    told = [[(each.type, getattr(each, "input", None)) for each in message.content]
            for message in (whole, streamed)]  # fmt: skip
    assert told[0] == told[1] == [("tool_use", {"path": "/tmp/a"}), ("text", None)]
    run = client.beta.messages.tool_runner(tools=tools, thread=False, stream=True, **asked)
    for stream in run:
        list(stream)
    assert ran == [("look", "/tmp/a")]


def test_the_async_client_streams_many_at_once(scripted: ScriptedServer) -> None:
    scripted.says("Grüße 🎉.")

    async def one(client: Any) -> str:
        async with client.messages.stream(**ASKED) as stream:
            return "".join([text async for text in stream.text_stream])

    async def many() -> list[str]:
        async with anthropic.AsyncAnthropic(
            base_url=scripted.url, api_key="none", max_retries=0
        ) as client:
            return await asyncio.gather(*(one(client) for _ in range(6)))

    assert asyncio.run(many()) == ["Grüße 🎉."] * 6


def test_errors_are_those_that_it_knows(scripted: ScriptedServer) -> None:
    client = _client(scripted)
    redacted = {"type": "redacted_thinking", "data": "x"}
    turns = [{"role": "user", "content": [redacted]}]
    with pytest.raises(anthropic.BadRequestError, match="encrypted thinking") as refused:
        client.messages.create(**ASKED | {"messages": turns})
    assert refused.value.body["error"]["type"] == "invalid_request_error"
    with pytest.raises(anthropic.BadRequestError, match="grammars need"):
        client.messages.create(**ASKED, tools=[ADD], tool_choice={"type": "any"})
    with pytest.raises(anthropic.NotFoundError, match="use 'm'"):
        client.messages.create(**ASKED | {"model": "other"})


def test_the_tiny_model_calls_a_tool_and_tells_its_result(tiny_url: str) -> None:
    client = anthropic.Anthropic(base_url=tiny_url, api_key="none", max_retries=0)
    tools = [
        {
            "name": each["name"],
            "description": each["description"],
            "input_schema": each["parameters"],
        }
        for each in FUNCTIONS
    ]
    asked = {"model": "tiny", "max_tokens": 300, "tools": tools, **GREEDY}
    turns: list[Any] = [{"role": "user", "content": QUESTION}]
    with client.messages.stream(messages=turns, **asked) as stream:
        first = stream.get_final_message()
    (call,) = [each for each in first.content if each.type == "tool_use"]
    assert (call.name, first.stop_reason) == (CALLED, "tool_use")
    result = {"type": "tool_result", "tool_use_id": call.id, "content": RESULT}
    turns += [
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": [result]},
    ]
    last = client.messages.create(messages=turns, **asked)
    assert [each.text for each in last.content] == [ANSWER]


def test_the_tiny_model_must_call_and_may_think(tiny_url: str) -> None:
    client = anthropic.Anthropic(base_url=tiny_url, api_key="none", max_retries=0)
    given = {"model": "tiny", "max_tokens": 400, **GREEDY}
    sums = [{"role": "user", "content": "What is 17 + 25?"}]
    thought, said = client.messages.create(messages=sums, **given, **THINKS).content
    assert (thought.type, said.type) == ("thinking", "text")
    assert thought.thinking
    assert "42" in said.text
    forced = client.messages.create(
        messages=sums, tools=[ADD], tool_choice={"type": "tool", "name": "add"}, **given
    )
    assert [each.name for each in forced.content if each.type == "tool_use"] == ["add"]
