"""Calls that must come, and answers of a schema beside tools: the trained model over HTTP."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import openai
import pytest
from jsonschema import Draft202012Validator
from structured_fixtures import FORMAT, SUM, Sum, ask
from written_calls import fits, written

from lostwax.server.gateway.chat_models import ChatRequest
from lostwax.server.gateway.forced_calls import asked_calls
from lostwax.server.gateway.response_format import Asked


def _tool(name: str, **properties: Any) -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    function = {"name": name, "description": f"{name}s.", "parameters": schema, "strict": True}
    return {"type": "function", "function": function}


ADD = _tool("add", a={"type": "integer"}, b={"type": "integer"})
FIND = _tool("find", city={"enum": ["Bern", "Zürich"]}, near={"type": "boolean"})
TOOLS: list[Any] = [ADD, FIND]


def _require_held(calls: Any) -> None:
    """Each call is of a tool, and its arguments are as the tool's schema says."""
    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in TOOLS}
    assert calls
    for call in calls:
        Draft202012Validator(schemas[call.function.name]).validate(
            json.loads(call.function.arguments)
        )


@pytest.mark.parametrize("content", [SUM, "Hello!", "Write a story about a fox."])
@pytest.mark.parametrize("thinking", [False, True])
def test_a_call_that_must_come_comes(
    structured_client: openai.OpenAI, content: str, thinking: bool
) -> None:
    extra = {"chat_template_kwargs": {"thinking": thinking}}
    asked = {"tools": TOOLS, "tool_choice": "required", "extra_body": extra, "max_tokens": 500}
    (choice,) = ask(structured_client, content, parallel_tool_calls=False, **asked).choices
    assert choice.finish_reason == "tool_calls"
    assert len(choice.message.tool_calls) == 1
    _require_held(choice.message.tool_calls)


@pytest.mark.parametrize("name", ["add", "find"])
def test_a_named_tool_is_called_in_streams_as_in_whole_answers(
    structured_client: openai.OpenAI, name: str
) -> None:
    choice = {"type": "function", "function": {"name": name}}
    whole = (
        ask(structured_client, SUM, tools=TOOLS, tool_choice=choice).choices[0].message.tool_calls
    )
    assert [call.function.name for call in whole] == [name]
    _require_held(whole)
    parts = list(ask(structured_client, SUM, tools=TOOLS, tool_choice=choice, stream=True))
    deltas = [call for part in parts for call in part.choices[0].delta.tool_calls or ()]
    assert "".join(d.function.arguments or "" for d in deltas) == whole[0].function.arguments
    assert parts[-1].choices[0].finish_reason == "tool_calls"


def test_strict_tools_leave_the_model_its_choice(structured_client: openai.OpenAI) -> None:
    (choice,) = ask(structured_client, "Hello!", tools=TOOLS, max_tokens=200).choices
    free = ask(structured_client, "Hello!", tools=[], max_tokens=200).choices[0].message.content
    if choice.finish_reason == "tool_calls":
        _require_held(choice.message.tool_calls)
    else:
        assert choice.message.content
        assert free


@pytest.mark.parametrize("content", [SUM, "Hello!", "Write a story about a fox."])
def test_with_a_format_beside_tools_the_answer_is_calls_or_of_that(
    structured_client: openai.OpenAI, content: str
) -> None:
    (choice,) = ask(structured_client, content, tools=TOOLS, response_format=FORMAT).choices
    if choice.finish_reason == "tool_calls":
        _require_held(choice.message.tool_calls)
        assert not choice.message.content
    else:
        Sum.model_validate_json(choice.message.content)


def test_a_call_that_must_come_leaves_a_format_nothing(structured_client: openai.OpenAI) -> None:
    (choice,) = ask(
        structured_client, SUM, tools=TOOLS, tool_choice="required", response_format=FORMAT
    ).choices
    _require_held(choice.message.tool_calls)


def test_no_other_form_than_json_stands_beside_tools(structured_client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="JSON of a schema") as found:
        ask(structured_client, SUM, tools=TOOLS, extra_body={"regex": "a+"})
    assert found.value.param == "regex"


def test_responses_take_formats_and_calls_that_must_come(structured_client: openai.OpenAI) -> None:
    parsed = structured_client.responses.parse(
        model="tiny", input=SUM, text_format=Sum, temperature=0, max_output_tokens=300
    )
    assert isinstance(parsed.output_parsed, Sum)
    flat: Any = [{"type": "function"} | tool["function"] for tool in TOOLS]
    called = structured_client.responses.create(
        model="tiny", input=SUM, tools=flat, tool_choice="required", temperature=0,
        parallel_tool_calls=False, max_output_tokens=300,
    )  # fmt: skip
    (call,) = [item for item in called.output if item.type == "function_call"]
    assert call.name in ("add", "find")
    assert isinstance(json.loads(call.arguments), dict)


def test_the_fault_of_a_format_beside_tools_is_the_formats(
    structured_client: openai.OpenAI,
) -> None:
    unique = {"type": "array", "uniqueItems": True}
    deep: Any = {"type": "object"}
    for _ in range(70):
        deep = {"type": "object", "properties": {"a": deep}}
    for schema, why in (
        ({"type": "object", "properties": {"a": unique}}, "the answer's schema, in 'a'"),
        (deep, "is nested"),
        ({"properties": 7}, "'properties' of the answer is no object"),
    ):
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        with pytest.raises(openai.BadRequestError, match=why) as refused:
            ask(structured_client, SUM, tools=TOOLS, response_format=form)
        assert refused.value.param == "response_format.json_schema.schema"


def _asked(**given: Any) -> Asked:
    """What a request asks of its answer."""
    body = {"messages": [{"role": "user", "content": "?"}], "tools": TOOLS, **given}
    asked = asked_calls(msgspec.json.decode(json.dumps(body), type=ChatRequest), "deepseekv32")
    assert asked is not None
    return asked


@pytest.mark.parametrize("choice", ["auto", "required"])
def test_one_call_may_come_where_one_at_a_time_is_asked_for(choice: str) -> None:
    call = ("add", {"a": 2, "b": 3})
    many = _asked(tool_choice=choice).grammar
    one = _asked(tool_choice=choice, parallel_tool_calls=False).grammar
    assert fits(many, written(call, call))
    assert fits(one, written(call))
    assert not fits(one, written(call, call))


def test_a_call_that_must_come_is_no_answer_of_the_format() -> None:
    told: Any = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}}
    assert fits(_asked(response_format=told).grammar, "{}")
    forced = _asked(response_format=told, tool_choice="required")
    assert forced == _asked(tool_choice="required")
    assert not fits(forced.grammar, "{}")
    for _ in range(70):  # deeper than any is read
        told["json_schema"]["schema"] = {"properties": {"a": told["json_schema"]["schema"]}}
    assert _asked(response_format=told, tool_choice="required") == forced, "it holds nothing"
