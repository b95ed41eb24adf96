"""Tools of `/v1/chat/completions` by the openai client, with answers written beforehand.

How a model writes calls is a stand-in's here (`bracket_calls.py`); formats have tests of their own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from bracket_calls import bracket_reader_of
from fake_runtime import FakeLimits
from http_server import running
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from scripted_runtime import CODEC, VOCAB, ScriptedRuntime, spelt
from scripted_server import ScriptedServer

from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.messages import Output, TokenScore
from lostwax.server.engine.options import EngineOptions
from lostwax.server.formats.encoders import encode_chat
from lostwax.server.formats.encoding_v32 import EOS
from lostwax.server.gateway import chat_reader
from lostwax.server.gateway.app import Settings, create_app
from lostwax.server.gateway.in_process import InProcessEngine
from lostwax.server.gateway.prepared import AnswerOptions, ChatTurn
from lostwax.server.gateway.request_record import RequestRecord
from lostwax.server.gateway.tool_models import MAX_SCHEMA_DEPTH, MAX_TOOL_BYTES

ASK: list[Any] = [{"role": "user", "content": "2 + 3?"}]
ADD: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds.",
        "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
    },
}
NOW: dict[str, Any] = {"type": "function", "function": {"name": "now"}}
TOOLS: list[Any] = [ADD, NOW]
TWO = 'Sure. [[add|{"a": 2, "t": "ü"}]][[now|{}]]'
ROOMY = FakeLimits(max_context=4096, page_tokens=16, num_pages=1025, vocab_size=VOCAB)
"""What the model is told of tools has more bytes than the tests' usual context."""
THINKING = {"chat_template_kwargs": {"thinking": True}}


class Server(ScriptedServer):
    """Asks by this interface."""

    def post(self, **given: Any) -> httpx.Response:
        body = {"messages": ASK, "temperature": 0, "tools": TOOLS} | given
        return self.send("/v1/chat/completions", body)

    def ask(self, **given: Any) -> ChatCompletion:
        answer = self.post(**given)
        assert answer.status_code == 200, answer.text
        return ChatCompletion.model_validate(answer.json(), strict=True)

    def stream(self, **given: Any) -> list[ChatCompletionChunk]:
        answer = self.post(stream=True, **given)
        lines = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
        assert lines[-1] == "[DONE]", answer.text
        return [ChatCompletionChunk.model_validate_json(line) for line in lines[:-1]]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    runtime = ScriptedRuntime(limits=ROOMY)
    core = EngineCore(runtime, EngineOptions(prefix_cache=False))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chat_reader, "reader_of", bracket_reader_of)
        with running(create_app(InProcessEngine(core), CODEC, Settings(model="m"))) as url:
            yield Server(runtime, url)


def _calls(answer: ChatCompletion) -> list[tuple[str, str]]:
    found: list[Any] = answer.choices[0].message.tool_calls or []
    return [(call.function.name, call.function.arguments) for call in found]


def _said(chunks: list[ChatCompletionChunk], name: str) -> str:
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    return "".join(getattr(delta, name, None) or "" for delta in deltas)


def test_calls_of_a_whole_answer(server: Server) -> None:
    answer = server.says(TWO).ask()
    (choice,) = answer.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "Sure. "
    assert _calls(answer) == [("add", '{"a": 2, "t": "ü"}'), ("now", "{}")]
    ids = [call.id for call in choice.message.tool_calls or []]
    assert len(set(ids)) == 2
    assert all(re.fullmatch(r"call_[0-9a-f]{24}", name) for name in ids)
    assert server.says("[[now|{}]]").ask().choices[0].message.content is None


def test_a_stream_names_a_call_first_and_then_gives_its_arguments_as_they_come(
    server: Server,
) -> None:
    chunks = server.says(TWO).stream()
    calls = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
    assert [chunk.choices[0].finish_reason for chunk in chunks][-1] == "tool_calls"
    assert sum(chunk.choices[0].finish_reason is not None for chunk in chunks) == 1
    assert _said(chunks, "content") == "Sure. "
    for index, (name, arguments) in enumerate([("add", '{"a": 2, "t": "ü"}'), ("now", "{}")]):
        first, *others = [call for call in calls if call.index == index]
        assert first.function is not None
        assert (first.type, first.function.name) == ("function", name)
        assert first.id
        assert {(call.id, call.type) for call in others} == {(None, None)}
        parts = [call.function.arguments or "" for call in (first, *others) if call.function]
        assert "".join(parts) == arguments
        assert len(parts) >= len(arguments), "a fragment a token"


def test_the_streaming_helper_assembles_the_calls(server: Server) -> None:
    kinds = set[str]()
    with server.says(TWO).client.chat.completions.stream(
        model="m", messages=ASK, tools=TOOLS
    ) as stream:
        for event in stream:
            kinds.add(event.type)
        (choice,) = stream.get_final_completion().choices
    assert {"tool_calls.function.arguments.delta", "tool_calls.function.arguments.done"} <= kinds
    calls: list[Any] = choice.message.tool_calls or []
    assert [json.loads(call.function.arguments) for call in calls] == [{"a": 2, "t": "ü"}, {}]
    assert choice.finish_reason == "tool_calls"


def test_a_round_trip_renders_tools_call_and_result(server: Server) -> None:
    create = server.says('[[add|{"a": 2}]]').client.chat.completions.create
    message = create(model="m", messages=ASK, tools=TOOLS).choices[0].message
    tools = [ADD["function"], NOW["function"]]
    assert server.runtime.prompt == CODEC.encode_pieces(encode_chat("deepseekv32", ASK, tools))
    assert message.tool_calls is not None
    result: Any = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "5"}
    server.says("Five.")
    history: list[Any] = [*ASK, message, result]
    assert create(model="m", messages=history, tools=TOOLS).choices[0].message.content == "Five."
    call = {"function": {"name": "add", "arguments": '{"a": 2}'}}
    told = [*ASK, {"role": "assistant", "tool_calls": [call]}, result]
    assert server.runtime.prompt == CODEC.encode_pieces(encode_chat("deepseekv32", told, tools))


def test_reasoning_comes_before_calls_and_a_call_in_it_is_none(server: Server) -> None:
    server.says('I could [[now|{}]]</think>[[add|{"a": 1}]]')
    answer = server.ask(**THINKING)
    message: Any = answer.choices[0].message
    assert message.reasoning_content == "I could [[now|{}]]"
    assert _calls(answer) == [("add", '{"a": 1}')]
    assert answer.usage is not None
    assert answer.usage.completion_tokens_details is not None
    assert answer.usage.completion_tokens_details.reasoning_tokens == 19
    chunks = server.stream(**THINKING)
    assert _said(chunks, "reasoning_content") == "I could [[now|{}]]"


BROKEN = {
    "breaks off": ('[[now|{}]] and [[add|{"a', ["now"], ' and [[add|{"a'),
    "the only one breaks off": ('[[add|{"a', [], '[[add|{"a'),
    "an unknown tool": ("[[rm|{}]]", [], "[[rm|{}]]"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_malformed_call_is_text_and_no_reason_to_end(server: Server, name: str) -> None:
    text, names, content = BROKEN[name]
    answer = server.says(text).ask()
    (choice,) = answer.choices
    assert [called for called, _ in _calls(answer)] == names
    assert choice.message.content == content
    assert choice.finish_reason == ("tool_calls" if names else "stop")
    chunks = server.stream()
    assert chunks[-1].choices[0].finish_reason == choice.finish_reason
    assert _said(chunks, "content") == content


def test_an_answer_that_did_not_end_by_itself_does_not_end_for_its_calls(server: Server) -> None:
    server.says(TWO + "and so on")
    cut = len(spelt(TWO)) + 3
    assert server.ask(max_tokens=cut).choices[0].finish_reason == "length"
    assert server.stream(max_tokens=cut)[-1].choices[0].finish_reason == "length"
    assert server.ask(stop="so").choices[0].finish_reason == "stop"
    assert server.ask(stop_token_ids=spelt("s")[:1]).choices[0].finish_reason == "stop"
    eos = CODEC.marks[EOS]
    assert server.says(TWO).ask(stop_token_ids=[eos]).choices[0].finish_reason == "tool_calls"


def test_one_call_at_a_time_ends_the_answer_at_the_first(server: Server) -> None:
    server.says(TWO)
    answer = server.ask(parallel_tool_calls=False)
    assert _calls(answer) == [("add", '{"a": 2, "t": "ü"}')]
    assert answer.choices[0].finish_reason == "tool_calls"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == len(spelt(TWO.partition("[[now")[0]))
    chunks = server.stream(parallel_tool_calls=False)
    assert {c.index for p in chunks for c in p.choices[0].delta.tool_calls or []} == {0}
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    assert len(_calls(server.ask(parallel_tool_calls=True))) == 2


def test_one_call_at_a_time_holds_where_a_step_gives_many_tokens(server: Server) -> None:
    turn = ChatTurn(format="deepseekv32", tools=["add", "now"], one_call=True)
    reader = chat_reader.ChatReader(AnswerOptions(), turn, CODEC)
    tokens = [TokenScore(token, 0.0) for token in spelt(TWO)]
    delta = reader.feed(Output(request="", tokens=tokens))
    assert {call.index for call in delta.calls} == {0}
    assert (delta.finish, reader.num_calls, reader.finished) == ("tool_calls", 1, True)


def test_each_of_several_answers_has_calls_of_its_own(server: Server) -> None:
    answer = server.says(TWO).ask(n=2)
    ids = [call.id for choice in answer.choices for call in choice.message.tool_calls or []]
    assert len(set(ids)) == 4


@pytest.mark.parametrize("given", [{"tools": None}, {"tools": []}, {"tool_choice": "none"}])
def test_who_offers_no_tools_is_answered_in_text(server: Server, given: dict[str, Any]) -> None:
    answer = server.says(TWO).ask(**given)
    assert server.runtime.prompt == CODEC.encode_pieces(encode_chat("deepseekv32", ASK))
    assert (answer.choices[0].message.content, _calls(answer)) == (TWO, [])
    assert answer.choices[0].finish_reason == "stop"


def test_logprobs_tell_of_the_tokens_of_calls(server: Server) -> None:
    logprobs = server.says(TWO).ask(logprobs=True).choices[0].logprobs
    assert logprobs is not None
    assert len(logprobs.content or []) == len(spelt(TWO)) + 1


def test_joined_reasoning_is_content_with_its_marks(server: Server) -> None:
    given = {"separate_reasoning": False}
    for text, more in (("so</think>yes", THINKING), ("<think>so</think>yes", {})):
        message: Any = server.says(text).ask(**given, **more).choices[0].message
        assert (message.content, message.reasoning_content) == (text, None)
        chunks = server.stream(**given, **more)
        assert (_said(chunks, "content"), _said(chunks, "reasoning")) == (text, "")
    assert server.says("so").ask(**given, **THINKING).choices[0].message.content == "so"
    separate: Any = server.says("so</think>yes").ask(separate_reasoning=True, **THINKING)
    assert separate.choices[0].message.content == "yes"


def _continued(last: dict[str, Any], **given: Any) -> dict[str, Any]:
    messages = [*ASK, {"role": "assistant", **last}]
    return {"messages": messages, "continue_final_message": True, "tools": None} | given


def test_a_final_message_is_continued(server: Server) -> None:
    begun = "<｜begin▁of▁sentence｜><｜User｜>2 + 3?<｜Assistant｜>"  # noqa: RUF001
    server.says("s five.")
    answer = server.ask(**_continued({"content": "It i"}))
    assert answer.choices[0].message.content == "s five."
    assert server.runtime.prompt == CODEC.encode_rendered(f"{begun}</think>It i")
    told = {"content": "It i", "reasoning": "Add."}
    server.ask(**_continued(told, **THINKING, add_generation_prompt=False))
    assert server.runtime.prompt == CODEC.encode_rendered(f"{begun}<think>Add.</think>It i")
    server.says("d.</think>Five.")
    message: Any = server.ask(**_continued({"reasoning": "Ad"}, **THINKING)).choices[0].message
    assert server.runtime.prompt == CODEC.encode_rendered(f"{begun}<think>Ad")
    assert (message.reasoning, message.content) == ("d.", "Five.")


def _schema(depth: int) -> Any:
    return json.loads('{"a": ' * depth + "{}" + "}" * depth)


def _tool(**given: Any) -> dict[str, Any]:
    return {"tools": [{"type": "function", "function": {"name": "f"} | given}]}


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "a name of no tool": (
        {"tool_choice": {"type": "function", "function": {"name": "sub"}}},
        "tool_choice",
        "no tool has the name 'sub'",
    ),
    "a call of nothing": ({"tool_choice": "required", "tools": []}, "tool_choice", "give tools"),
    "a strange choice": ({"tool_choice": "any"}, "tool_choice", "any"),
    "a list of allowed tools": (
        {"tool_choice": {"type": "allowed_tools"}},
        "tool_choice.type",
        "none, auto",
    ),
    "a built-in tool": ({"tools": [{"type": "web_search"}]}, "tools[0].type", "'function'"),
    "no function": ({"tools": [{"type": "function"}]}, "tools[0].function", "required"),
    "no name": (_tool(name=""), "tools[0].function.name", ">= 1"),
    "a long name": (_tool(name="f" * 257), "tools[0].function.name", "<= 256"),
    "a name that breaks out": (_tool(name='a" b'), "tools[0].function.name", "rename"),
    "two of a name": ({"tools": [ADD, ADD]}, "tools", "rename one"),
    "too many": ({"tools": [ADD] * 513}, "tools", "<= 512"),
    "a list of arguments": (_tool(parameters=[]), "tools[0].function.parameters", "object"),
    "another type": (
        _tool(parameters={"type": "string"}),
        "tools[0].function.parameters",
        "must be 'object'",
    ),
    "a deep schema": (
        _tool(parameters=_schema(MAX_SCHEMA_DEPTH + 1)),
        "tools[0].function.parameters",
        "flatten",
    ),
    "a schema without a bottom": (
        _tool(parameters=_schema(900)),
        "tools[0].function.parameters",
        "flatten",
    ),
    "a long schema": (
        _tool(parameters={"a": "x" * MAX_TOOL_BYTES}),
        "tools[0].function.parameters",
        "shorten",
    ),
    "long schemas": (
        {"tools": [_tool(name=f"f{i}", description="x" * 65000)["tools"][0] for i in range(17)]},
        "tools",
        "send fewer",
    ),
    "an unknown field": (_tool(examples=[]), "tools[0].function.examples", "remove it"),
    "functions": ({"functions": [{}]}, "functions", "send the functions as tools"),
    "a user's message to go on with": (
        {"continue_final_message": True},
        "continue_final_message",
        "no assistant's",
    ),
    "no turn at all": ({"add_generation_prompt": False}, "add_generation_prompt", "only true"),
    "a call to go on with": (
        _continued({"tool_calls": [{"function": {"name": "f"}}]}),
        "messages",
        "add a result of each call",
    ),
    "a missing result before what is continued": (
        _continued({"content": "x"})
        | {
            "messages": [
                *ASK,
                {"role": "assistant", "tool_calls": [{"function": {"name": "f"}}] * 2},
                {"role": "tool", "content": "1"},
                {"role": "assistant", "content": "x"},
            ]
        },
        "messages",
        "messages[1] has fewer results than calls behind it, 1 of 2",
    ),
    "a text without the reasoning before it": (
        _continued({"content": "It i"}, **THINKING),
        "messages",
        "bring back the reasoning",
    ),
    "the first message": (
        {"messages": [{"role": "assistant", "content": "x"}], "continue_final_message": True},
        "messages",
        "must follow",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_served_says_what_to_do(server: Server, name: str) -> None:
    given, param, words = REFUSED[name]
    answer = server.post(**given)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["param"] == param, error
    assert words in error["message"], error
    assert len(error["message"]) < 1000


def test_a_schema_of_the_deepest_kind_is_taken(server: Server) -> None:
    server.says("ok").ask(**_tool(parameters=_schema(MAX_SCHEMA_DEPTH), strict=False))


def test_a_prompt_with_tools_is_tokenised_as_it_is_run(server: Server) -> None:
    server.says("ok").ask(**THINKING)
    given = {"messages": ASK, "tools": TOOLS, **THINKING}
    answer = httpx.post(f"{server.url}/tokenize", json=given)
    assert answer.json()["tokens"] == server.runtime.prompt
    begun = _continued({"content": "It i"})
    server.says("s.").ask(**begun)
    answer = httpx.post(f"{server.url}/tokenize", json=begun)
    assert answer.json()["tokens"] == server.runtime.prompt
    refused = httpx.post(f"{server.url}/tokenize", json={"prompt": "x", "tools": TOOLS})
    assert refused.json()["error"]["param"] == "tools"


def test_an_operator_sees_an_answer_with_calls_as_one_that_ended_by_itself() -> None:
    record = RequestRecord("POST", "/v1/chat/completions", "id", "")
    record.status, record.generates = 200, True
    record.note_finish("tool_calls")
    assert record.outcome == "stop"
