"""Of a call that breaks, clients have arguments that none of them takes, however lenient it is; and
what they have of it they may send back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jiter
import msgspec
import pytest
from call_texts import DSML_PIECES, V31_PIECES, block, invoke, parameter, v31
from fake_runtime import FakeLimits
from http_server import running
from hypothesis import given
from hypothesis import strategies as st
from scripted_runtime import CODEC, VOCAB, ScriptedRuntime
from scripted_server import ScriptedServer

from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.options import EngineOptions
from lostwax.server.formats.encoders import Format
from lostwax.server.formats.encoding_v31 import SEPARATOR
from lostwax.server.formats.json_prefix import JsonPrefix
from lostwax.server.formats.message import MessageDelta
from lostwax.server.formats.pieces import joined
from lostwax.server.formats.readers import reader_of
from lostwax.server.gateway.app import Settings, create_app
from lostwax.server.gateway.chat_models import ChatRequest
from lostwax.server.gateway.chat_pieces import chat_pieces
from lostwax.server.gateway.errors import ApiError
from lostwax.server.gateway.in_process import InProcessEngine

NESTED = '{"a": {"b": ["x\\"\\\\", {"c": [1.5e-3, null]}, [true]]}, "d": "\\u00e9"}'
ANSWERS: dict[str, tuple[Format, str]] = {
    **{f"dsml: {name}": ("deepseekv32", "".join(each)) for name, each in DSML_PIECES.items()},
    **{f"v31: {name}": ("deepseekv31", "".join(each)) for name, each in V31_PIECES.items()},
    "dsml: nested": ("deepseekv32", block(invoke("f", parameter("p", NESTED, False)))),
    "v31: nested": ("deepseekv31", v31("f", NESTED)),
    "dsml: a key with a quote": ("deepseekv32", block(invoke("f", '{"a\\"b": [1]}'))),
    "twice": ("deepseekv32", block(invoke("f", parameter("a", "/b"), parameter("a", "/c")))),
}


def _completed(text: str) -> Any:
    """As LangChain reads arguments: brackets that are open are closed, and what is no JSON at the
    end is left out; None where a bracket closes another one."""
    made, open_, in_string, is_escaped = list[str](), list[str](), False, False
    for char in text:
        if in_string:
            in_string = char != '"' or is_escaped
            is_escaped = char == "\\" and not is_escaped
        elif char == '"':
            in_string, is_escaped = True, False
        elif char in "{[":
            open_.append("}" if char == "{" else "]")
        elif char in "}]" and (not open_ or open_.pop() != char):
            return None
        made.append(char)
    made += ['"'] if in_string else []
    while made:
        try:
            return json.loads("".join([*made, *reversed(open_)]), strict=False)
        except ValueError:
            made.pop()
    return None


def _require_unread(text: str) -> None:
    assert text, "nothing at all is read as no arguments"
    assert _completed(text) is None, text
    for mode in (True, "trailing-strings"):
        with pytest.raises(ValueError, match=r"."):
            jiter.from_json(text.encode(), partial_mode=mode)


@pytest.mark.parametrize("name", ANSWERS)
def test_arguments_of_a_call_that_breaks_anywhere_are_read_by_nobody(name: str) -> None:
    format, text = ANSWERS[name]
    num_broken = 0
    for end in range(1, len(text) + 1):
        reader, message = reader_of(format, thinks=False), MessageDelta()
        message.extend(reader.push(text[:end]))
        message.extend(reader.finish())
        for call in message.calls:
            if call.index < reader.num_calls:
                assert isinstance(json.loads(call.arguments), dict)
            else:
                num_broken += 1
                assert call.name, "a part of no call"
                _require_unread(call.arguments)
    assert num_broken > 10 or name == "dsml: no call"


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@given(value=st.dictionaries(st.text(max_size=3), _VALUES), cut=st.integers(0, 60))
def test_a_misfit_ends_any_beginning_of_an_object(value: dict[str, Any], cut: int) -> None:
    beginning = json.dumps(value, ensure_ascii=cut % 2 == 0)[:-1][:cut]
    prefix = JsonPrefix()
    assert prefix.push(beginning) == len(beginning)
    _require_unread(beginning + prefix.misfit())


def _history(message: MessageDelta, num_results: int) -> list[Any]:
    """A stream's answer as a client sends it back, with the results of the first calls."""
    calls = [
        {"id": f"c{call.index}", "function": {"name": call.name, "arguments": call.arguments}}
        for call in message.calls
    ]
    results = [
        {"role": "tool", "tool_call_id": call["id"], "content": "Not run."} for call in calls
    ]
    turn = {"role": "assistant", "content": message.content, "tool_calls": calls}
    return [{"role": "user", "content": "?"}, turn, *results[:num_results]]


def _request(messages: list[Any]) -> ChatRequest:
    return msgspec.json.decode(json.dumps({"messages": messages}), type=ChatRequest)


def _prompt(format: Format, messages: list[Any]) -> str:
    return joined(chat_pieces(_request(messages), format))


@pytest.mark.parametrize("name", ANSWERS)
def test_what_a_stream_told_of_its_calls_can_be_sent_back(name: str) -> None:
    """With a result of the broken call, as agents tell of its failure, and without one."""
    format, text = ANSWERS[name]
    num_broken = 0
    for end in range(1, len(text) + 1):
        reader, message = reader_of(format, thinks=False), MessageDelta()
        message.extend(reader.push(text[:end]))
        message.extend(reader.finish())
        told = _prompt(format, [*_history(message, len(message.calls)), _USER])
        for call in message.calls[reader.num_calls :]:
            num_broken += 1
            assert call.arguments in told
            unheard = _prompt(format, [*_history(message, reader.num_calls), _USER])
            assert call.arguments not in unheard
            assert unheard.count("Not run.") == reader.num_calls
    assert num_broken > 10 or name == "dsml: no call"


_USER = {"role": "user", "content": "Go on."}


def _call(name: str, arguments: str = "{}", **given: str) -> dict[str, Any]:
    return {"function": {"name": name, "arguments": arguments}, **given}


def _result(text: str, **given: str) -> dict[str, Any]:
    return {"role": "tool", "content": text, **given}


FORMATS: tuple[Format, ...] = ("deepseekv32", "deepseekv31")
_ARGUMENTS = '{"a": 1,]'
_TEXTS: dict[Format, str] = {"deepseekv32": '<invoke name="f">', "deepseekv31": f"f{SEPARATOR}{{"}


def _turn(format: Format, *calls: dict[str, Any], text: str | None = None) -> dict[str, Any]:
    content = _TEXTS[format] if text is None else text
    return {"role": "assistant", "content": content, "tool_calls": list(calls)}


LEFT_OUT: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {
    "by id": (
        [_call("g", id="a"), _call("h", id="b"), _call("f", _ARGUMENTS, id="c")],
        [_result("1", tool_call_id="a"), _result("2", tool_call_id="b")],
    ),
    "without ids": ([_call("g"), _call("h"), _call("f", _ARGUMENTS)], [_result("1"), _result("2")]),
    "alone": ([_call("f", _ARGUMENTS)], []),
}


@pytest.mark.parametrize("name", LEFT_OUT)
@pytest.mark.parametrize("format", FORMATS)
def test_a_call_that_nobody_ran_is_left_out_and_the_others_have_their_results(
    format: Format, name: str
) -> None:
    calls, results = LEFT_OUT[name]
    told = _prompt(format, [_USER, _turn(format, *calls), *results, _USER])
    assert told == _prompt(format, [_USER, _turn(format, *calls[:-1]), *results, _USER])


KEPT: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {
    "its result has no id": (
        [_call("g", id="a"), _call("f", _ARGUMENTS, id="b")],
        [_result("1", tool_call_id="a"), _result("No JSON.")],
    ),
    "its result has its id": ([_call("f", _ARGUMENTS, id="a")], [_result("1", tool_call_id="a")]),
}


@pytest.mark.parametrize("name", KEPT)
@pytest.mark.parametrize("format", FORMATS)
def test_a_call_that_broke_and_has_a_result_stays(format: Format, name: str) -> None:
    calls, results = KEPT[name]
    prompt = _prompt(format, [_USER, _turn(format, *calls), *results, _USER])
    elsewhere = _prompt(format, [_USER, _turn(format, *calls, text="Well."), *results, _USER])
    assert prompt == elsewhere.replace("Well.", _TEXTS[format])
    assert prompt.count(_ARGUMENTS) == 1


@pytest.mark.parametrize("text", ["", "I call f."])
@pytest.mark.parametrize("format", FORMATS)
def test_a_call_whose_text_is_nowhere_else_is_not_lost(format: Format, text: str) -> None:
    broken, whole = _call("f", _ARGUMENTS, id="b"), _call("g", id="a")
    alone = _turn(format, broken, text=text)
    assert _ARGUMENTS in _prompt(format, [_USER, alone, _USER])
    results = [_result("1", tool_call_id="a")]
    turn = _turn(format, whole, broken, text=text)
    with pytest.raises(ApiError, match=r"^messages\[1\] has fewer results than calls .*, 1 of 2"):
        _prompt(format, [_USER, turn, *results, _USER])
    turn = _turn(format, broken, whole)  # none is read behind a broken one
    with pytest.raises(ApiError, match="a result of each call, in the order of the calls"):
        _prompt(format, [_USER, turn, *results, _USER])


@pytest.mark.parametrize("format", FORMATS)
def test_a_result_of_a_call_that_broke_goes_to_no_other(format: Format) -> None:
    turn = _turn(format, _call("g"), _call("f", _ARGUMENTS, id="b"))
    with pytest.raises(ApiError, match="fewer results than calls"):
        _prompt(format, [_USER, turn, _result("No JSON.", tool_call_id="b"), _USER])


@pytest.mark.parametrize("format", FORMATS)
def test_a_whole_call_needs_its_result_whatever_the_content_holds(format: Format) -> None:
    turn = _turn(format, _call("g", id="a"), _call("f", id="b"))
    with pytest.raises(ApiError, match="fewer results than calls"):
        _prompt(format, [_USER, turn, _result("1", tool_call_id="a"), _USER])


def test_a_turn_whose_only_call_broke_is_not_continued() -> None:
    turn = _turn("deepseekv32", _call("f", _ARGUMENTS))
    body = {"messages": [_USER, turn], "continue_final_message": True}
    request = msgspec.json.decode(json.dumps(body), type=ChatRequest)
    with pytest.raises(ApiError, match="the last message calls tools"):
        chat_pieces(request, "deepseekv32")


def test_a_key_that_no_parameter_has_goes_back_as_it_came() -> None:
    (call,) = (
        reader_of("deepseekv32", thinks=False).push(ANSWERS["dsml: a key with a quote"][1]).calls
    )
    prompt = _prompt("deepseekv32", _history(MessageDelta(calls=[call]), 1))
    assert invoke("f", call.arguments) in prompt


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedServer]:
    roomy = FakeLimits(max_context=8192, page_tokens=16, num_pages=2049, vocab_size=VOCAB)
    runtime = ScriptedRuntime(limits=roomy)
    core = EngineCore(runtime, EngineOptions(prefix_cache=False))
    with running(create_app(InProcessEngine(core), CODEC, Settings(model="m"))) as url:
        yield ScriptedServer(runtime, url)


BROKEN = block(
    invoke("add", parameter("a", "2", False)), invoke("add", parameter("a", "{,", False))
)


def _events(server: ScriptedServer, path: str, **body: Any) -> list[dict[str, Any]]:
    answer = server.send(path, {"stream": True, **body})
    assert answer.status_code == 200, answer.text
    lines = [line for line in answer.text.splitlines() if line.startswith("data: {")]
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def test_an_agent_over_chats_goes_on_behind_a_broken_call(server: ScriptedServer) -> None:
    add = {"type": "function", "function": {"name": "add"}}
    asked: list[Any] = [{"role": "user", "content": "2 + 3?"}]
    server.says(BROKEN)
    message, calls = "", dict[int, dict[str, Any]]()
    for event in _events(server, "/v1/chat/completions", messages=asked, tools=[add]):
        delta = event["choices"][0]["delta"]
        message += delta.get("content") or ""
        for part in delta.get("tool_calls", ()):
            call = calls.setdefault(part["index"], {"id": part.get("id"), "arguments": ""})
            call["name"] = call.get("name") or part["function"]["name"]
            call["arguments"] += part["function"]["arguments"]
    told = list[dict[str, Any]]()
    for each in calls.values():
        told.append({"id": each.pop("id"), "type": "function", "function": each})
    assert [each["function"]["arguments"] for each in told] == ['{"a": 2}', '{"a": {,]']
    turn = {"role": "assistant", "content": message, "tool_calls": told}
    results = [
        {"role": "tool", "tool_call_id": call["id"], "content": said}
        for call, said in zip(told, ("2", "no JSON"), strict=True)
    ]
    for behind in (results, results[:1]):
        server.says("Five.")
        body = {"messages": [*asked, turn, *behind], "tools": [add]}
        answer = server.send("/v1/chat/completions", body)
        assert answer.json()["choices"][0]["message"]["content"] == "Five.", answer.text


def test_an_agent_over_responses_goes_on_behind_a_broken_call(server: ScriptedServer) -> None:
    add = {"type": "function", "name": "add"}
    server.says(BROKEN)
    events = _events(server, "/v1/responses", input="2 + 3?", tools=[add])
    items = [each["item"] for each in events if each["type"] == "response.output_item.done"]
    calls = [item for item in items if item["type"] == "function_call"]
    assert [call["status"] for call in calls] == ["completed", "incomplete"]
    results = [
        {"type": "function_call_output", "call_id": call["call_id"], "output": "?"}
        for call in calls
    ]
    for behind in (results, results[:1]):
        server.says("Five.")
        asked = [{"role": "user", "content": "2 + 3?"}, *items, *behind]
        answer = server.send("/v1/responses", {"input": asked, "tools": [add]})
        assert answer.json()["output"][0]["content"][0]["text"] == "Five.", answer.text
