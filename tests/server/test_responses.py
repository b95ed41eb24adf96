"""`/v1/responses` by the openai client, with answers written beforehand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from bracket_calls import bracket_reader_of
from fake_runtime import FakeLimits
from http_server import running
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter
from scripted_runtime import CODEC, VOCAB, ScriptedRuntime, spelt
from scripted_server import ScriptedServer

from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.options import EngineOptions
from lostwax.server.formats.encoders import encode_chat
from lostwax.server.gateway import chat_reader
from lostwax.server.gateway.app import Settings, create_app
from lostwax.server.gateway.in_process import InProcessEngine

ADD: dict[str, Any] = {
    "type": "function",
    "name": "add",
    "description": "Adds.",
    "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
    "strict": False,
}
TOOLS: list[Any] = [ADD, {"type": "function", "name": "now"}]
FUNCTIONS = [
    {name: value for name, value in tool.items() if name not in ("type", "strict")}
    for tool in TOOLS
]
CALLS = 'Sure. [[add|{"a": 2}]][[now|{}]]'
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
ROOMY = FakeLimits(max_context=4096, page_tokens=16, num_pages=1025, vocab_size=VOCAB)


class Server(ScriptedServer):
    """Asks by this interface."""

    def post(self, **given: Any) -> httpx.Response:
        return self.send("/v1/responses", {"input": "Hi?"} | given)

    def ask(self, **given: Any) -> Response:
        answer = self.post(**given)
        assert answer.status_code == 200, answer.text
        return Response.model_validate_json(answer.text, strict=True)

    def stream(self, **given: Any) -> list[Any]:
        """The events, each of the type that its name says."""
        text = self.post(stream=True, **given).text
        blocks = [block.split("\n") for block in text.split("\n\n") if block]
        events = [EVENT.validate_json(data.removeprefix("data: ")) for _, data in blocks]
        assert [name.removeprefix("event: ") for name, _ in blocks] == [e.type for e in events]
        return events


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    runtime = ScriptedRuntime(limits=ROOMY)
    core = EngineCore(runtime, EngineOptions(prefix_cache=False))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chat_reader, "reader_of", bracket_reader_of)
        with running(create_app(InProcessEngine(core), CODEC, Settings(model="m"))) as url:
            yield Server(runtime, url)


def _prompt(messages: list[dict[str, Any]], **given: Any) -> list[int]:
    return CODEC.encode_pieces(encode_chat("deepseekv32", messages, **given))


def test_an_answer_by_the_client(server: Server) -> None:
    response = server.says("Hello, wörld!").client.responses.create(
        model="m", input="Hi?", instructions="Be terse.", metadata={"a": "b"}, temperature=0
    )
    told = [{"role": "system", "content": "Be terse."}, {"role": "user", "content": "Hi?"}]
    assert server.runtime.prompt == _prompt(told)
    assert response.output_text == "Hello, wörld!"
    assert (response.status, response.error, response.incomplete_details) == (
        "completed", None, None,
    )  # fmt: skip
    assert (response.instructions, response.metadata) == ("Be terse.", {"a": "b"})
    assert (response.temperature, response.top_p, response.tools) == (0, 1, [])
    assert response.id.startswith("resp_")
    usage = response.usage
    assert usage is not None
    num_prompt, num_answer = len(server.runtime.prompt), len("Hello, wörld!".encode()) + 1
    assert (usage.input_tokens, usage.output_tokens) == (num_prompt, num_answer)
    assert usage.total_tokens == num_prompt + num_answer


def test_reasoning_message_and_calls_are_items(server: Server) -> None:
    server.says("Hm.</think>" + CALLS)
    response = server.ask(reasoning={"effort": "low", "summary": "auto"}, tools=TOOLS)
    thought, said, *calls = response.output
    assert thought.type == "reasoning"
    assert [part.text for part in thought.content or []] == ["Hm."]
    assert said.type == "message"
    assert response.output_text == "Sure. "
    found = [(c.name, c.arguments, c.status) for c in calls if c.type == "function_call"]
    assert found == [("add", '{"a": 2}', "completed"), ("now", "{}", "completed")]
    assert response.usage is not None
    assert response.usage.output_tokens_details.reasoning_tokens == 4
    assert server.runtime.prompt == _prompt(
        [{"role": "user", "content": "Hi?"}], tools=FUNCTIONS, thinking=True
    )


def test_a_stream_tells_of_each_item_from_begin_to_end(server: Server) -> None:
    server.says("Hm.</think>" + CALLS)
    events = server.stream(reasoning={"effort": "high"}, tools=TOOLS)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type.removeprefix("response.") for event in events]
    once = [kind for at, kind in enumerate(kinds) if not at or kinds[at - 1] != kind]
    text = ["content_part.added", "X.delta", "X.done", "content_part.done"]
    call = [f"function_call_arguments.{end}" for end in ("delta", "done")]
    item = ("output_item.added", "output_item.done")
    assert once == [
        "created", "in_progress",
        item[0], *(kind.replace("X", "reasoning_text") for kind in text), item[1],
        item[0], *(kind.replace("X", "output_text") for kind in text), item[1],
        item[0], *call, item[1],
        item[0], *call, item[1],
        "completed",
    ]  # fmt: skip
    deltas = [event for event in events if event.type.endswith(".delta")]
    texts = ["".join(e.delta for e in deltas if e.output_index == i) for i in range(4)]
    assert texts == ["Hm.", "Sure. ", '{"a": 2}', "{}"]
    done = [event.item for event in events if event.type == "response.output_item.done"]
    whole = events[-1].response
    assert whole.output == done
    assert whole.usage == server.ask(reasoning={"effort": "high"}, tools=TOOLS).usage
    assert events[0].response.status == "in_progress"
    assert events[0].response.output == []


def test_the_streaming_helper_follows(server: Server) -> None:
    said = ""
    with server.says(CALLS).client.responses.stream(model="m", input="Hi?", tools=TOOLS) as stream:
        for event in stream:
            if event.type == "response.output_text.delta":
                said += event.delta
                assert event.snapshot == said
        response = stream.get_final_response()
    assert said == response.output_text == "Sure. "
    calls = [item for item in response.output if item.type == "function_call"]
    assert [(call.name, call.arguments) for call in calls] == [("add", '{"a": 2}'), ("now", "{}")]


def test_a_round_trip_sends_the_items_back_as_they_came(server: Server) -> None:
    thinks: Any = {"reasoning": {"effort": "medium"}, "tools": TOOLS}
    server.says("Hm.</think>" + CALLS)
    create = server.client.responses.create
    items: list[Any] = [{"role": "user", "content": [{"type": "input_text", "text": "Hi?"}]}]
    response = create(model="m", input=items, **thinks)
    items += [item.to_dict() for item in response.output]
    calls = [item for item in response.output if item.type == "function_call"]
    results = [
        {"type": "function_call_output", "call_id": call.call_id, "output": call.name}
        for call in calls
    ]
    server.says("So.</think>Five.")
    assert create(model="m", input=items + results[::-1], **thinks).output_text == "Five."
    functions = [{"name": c.name, "arguments": c.arguments} for c in calls]
    told = [
        {"role": "user", "content": "Hi?"},
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


@pytest.mark.parametrize("content", [None, []])
def test_reasoning_of_which_only_a_summary_is_left_is_that(server: Server, content: Any) -> None:
    summary = [{"type": "summary_text", "text": text} for text in ("Hm. ", "So.")]
    thought = {"type": "reasoning", "summary": summary, "content": content}
    call = {"type": "function_call", "call_id": "1", "name": "add", "arguments": "{}"}
    result = {"type": "function_call_output", "call_id": "1", "output": "5"}
    asked = {"role": "user", "content": "Hi?"}
    server.says("So.</think>Five.").ask(
        input=[asked, thought, call, result], tools=TOOLS, reasoning={"effort": "low"}
    )
    turn: dict[str, Any] = {"role": "assistant", "content": "", "reasoning_content": "Hm. So."}
    turn["tool_calls"] = [{"function": {"name": "add", "arguments": "{}"}}]
    told = [asked, turn, {"role": "tool", "content": "5"}]
    assert server.runtime.prompt == _prompt(told, tools=FUNCTIONS, thinking=True)


def test_a_developers_word_is_an_instruction(server: Server) -> None:
    server.says("Yes.").ask(
        input=[{"role": "developer", "content": "Obey."}, {"role": "user", "content": "So?"}]
    )
    told = [{"role": "system", "content": "Obey."}, {"role": "user", "content": "So?"}]
    assert server.runtime.prompt == _prompt(told)


def test_an_answer_that_is_cut_is_incomplete(server: Server) -> None:
    server.says("Hello, there.")
    response = server.ask(max_output_tokens=5)
    assert (response.status, response.output_text) == ("incomplete", "Hello")
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    (item,) = response.output
    assert item.type == "message"
    assert item.status == "incomplete"
    last = server.stream(max_output_tokens=5)[-1]
    assert (last.type, last.response.output_text) == ("response.incomplete", "Hello")


def test_a_call_that_breaks_off_is_text(server: Server) -> None:
    server.says('[[now|{}]][[add|{"a')
    for response in (server.ask(tools=TOOLS), server.stream(tools=TOOLS)[-1].response):
        calls = [item for item in response.output if item.type == "function_call"]
        assert [call.name for call in calls] == ["now"]
        assert response.output_text == '[[add|{"a'


def test_one_call_at_a_time(server: Server) -> None:
    response = server.says(CALLS).ask(tools=TOOLS, parallel_tool_calls=False)
    assert [item.type for item in response.output] == ["message", "function_call"]
    assert response.parallel_tool_calls is False
    assert response.status == "completed"


def test_values_that_ask_for_nothing_are_taken(server: Server) -> None:
    server.says("Yes.").ask(
        store=False, background=False, previous_response_id=None, truncation="disabled",
        include=["reasoning.encrypted_content"], text={"format": {"type": "text"}},
        service_tier="auto", top_logprobs=0, prompt_cache_key="x", tool_choice="auto",
        reasoning={"effort": None, "summary": None}, stream_options=None, user="me",
    )  # fmt: skip


def test_sampling_reaches_the_engine(server: Server) -> None:
    server.says("Yes.").ask(temperature=1, top_p=0.25, top_k=40, min_p=0.125)
    assert server.runtime.narrowed == [(40, 0.25, 0.125)]


def _item(kind: str, **given: Any) -> dict[str, Any]:
    return {"input": [{"role": "user", "content": "Hi?"}, {"type": kind, **given}]}


CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "no input": ({"input": None}, "input", "required"),
    "an empty input": ({"input": []}, "input", ">= 1"),
    "a response before": ({"previous_response_id": "resp_1"}, "previous_response_id", "whole"),
    "a conversation": ({"conversation": "conv_1"}, "conversation", "whole conversation"),
    "a store": ({"store": True}, "store", "nothing is stored"),
    "the background": ({"background": True}, "background", "stream"),
    "a built-in tool": ({"tools": [{"type": "web_search"}]}, "tools[0].type", "web_search"),
    "truncation": ({"truncation": "auto"}, "truncation", "old items"),
    "several answers": ({"n": 2}, "n", "/v1/chat/completions"),
    "alternatives of nothing": ({"top_logprobs": 2}, "top_logprobs", "it needs include"),
    "too many alternatives": (
        {"include": ["message.output_text.logprobs"], "top_logprobs": 21},
        "top_logprobs",
        "20",
    ),
    "sources": ({"include": ["file_search_call.results"]}, "include[0]", "file_search"),
    "an image": (
        {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
        "input[0].content[0].type",
        "only texts",
    ),
    "a reference": (_item("item_reference", id="x"), "input[1].type", "stored items"),
    "a call without a name": (_item("function_call", call_id="x"), "input[1].", "needs it"),
    "a result of nothing": (
        _item("function_call_output", call_id="x", output="1"),
        "input",
        "right before it",
    ),
    "a missing result": (
        {
            "input": [
                {"role": "user", "content": "Hi?"},
                CALL,
                CALL | {"call_id": "d"},
                {"type": "function_call_output", "call_id": "d", "output": "1"},
            ]
        },
        "input",
        "call 'c' has no result",
    ),
    "two calls of an id": ({"input": [CALL, CALL]}, "input", "two calls"),
    "the assistant's turn": (
        {"input": [{"role": "assistant", "content": "x"}]},
        "input",
        "no turn",
    ),
    "two opinions": (
        {"reasoning": {"effort": "none"}, "chat_template_kwargs": {"thinking": True}},
        "reasoning",
        "opposite",
    ),
    "too long an answer": ({"max_output_tokens": 5000}, "input", "maximum context length"),
    "no tokens": ({"max_output_tokens": 0}, "max_output_tokens", ">= 1"),
    "a schema that is no object": (
        {"text": {"format": {"type": "json_schema", "name": "n", "schema": True}}},
        "text.format.schema",
        "which is an object",
    ),
    "the form under chats' name": (
        {"response_format": {"type": "json_object"}},
        "response_format",
        "text.format",
    ),
    "an unknown field": ({"max_tokens": 3}, "max_tokens", "remove it"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_served_says_what_to_do(server: Server, name: str) -> None:
    given, param, words = REFUSED[name]
    answer = server.post(**given)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["param"].startswith(param), error
    assert words in error["message"], error


def test_another_model_is_not_there(server: Server) -> None:
    with pytest.raises(openai.NotFoundError):
        server.client.responses.create(model="other", input="Hi?")


def test_an_error_of_a_stream_is_an_event(server: Server, monkeypatch: Any) -> None:
    def fails(self: Any, batch: Any) -> Any:
        raise RuntimeError("no")

    server.runtime.script = spelt("abc")
    monkeypatch.setattr(ScriptedRuntime, "run", fails)
    text = server.post(stream=True).text
    name, data = text.strip().split("\n\n")[-1].split("\n")
    told = json.loads(data.removeprefix("data: "))
    assert (name, told["type"]) == ("event: error", "error")
    assert EVENT.validate_python(told).message
