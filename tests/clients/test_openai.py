"""openai-python against the trained tiny model: tools, and `parse` in every way that it has.

What needs no true answer is in `tests/server` (`test_openai_helpers.py`, `test_responses.py`).
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel
from tiny_tools import ANSWER, CALLED, FUNCTIONS, QUESTION, RESULT

pytestmark = pytest.mark.clients

SUM = "What is 17 + 25?"
ASK: list[Any] = [{"role": "user", "content": SUM}]
TOOLS: list[Any] = [{"type": "function", "function": each} for each in FUNCTIONS]
GIVEN: dict[str, Any] = {"model": "tiny", "temperature": 0}


class Sum(BaseModel):
    """The answer to a sum."""

    answer: int
    unit: Literal["apples", "pears"]


class Add(BaseModel):
    """Adds two numbers."""

    a: int
    b: int


@pytest.fixture
def client(tiny_url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{tiny_url}/v1", api_key="none", max_retries=0)


def _with_async(client: openai.OpenAI, ask: Any) -> Any:
    async def run() -> Any:
        async with openai.AsyncOpenAI(
            base_url=str(client.base_url), api_key="none", max_retries=0
        ) as other:
            return await ask(other)

    return asyncio.run(run())


@pytest.mark.parametrize("stream", [False, True])
def test_chats_call_a_tool_and_tell_its_result(client: openai.OpenAI, stream: bool) -> None:
    turns: list[Any] = [{"role": "user", "content": QUESTION}]
    asked: dict[str, Any] = GIVEN | {"tools": TOOLS, "max_tokens": 300}

    def answer() -> Any:
        if not stream:
            return client.chat.completions.create(messages=turns, **asked).choices[0]
        with client.chat.completions.stream(messages=turns, **asked) as parts:
            return parts.get_final_completion().choices[0]

    first = answer()
    assert first.finish_reason == "tool_calls"
    (call,) = first.message.tool_calls
    assert call.function.name == CALLED
    turns += [first.message, {"role": "tool", "tool_call_id": call.id, "content": RESULT}]
    last = answer()
    assert (last.message.content, last.finish_reason) == (ANSWER, "stop")


@pytest.mark.parametrize("stream", [False, True])
def test_responses_call_a_tool_and_tell_its_result(client: openai.OpenAI, stream: bool) -> None:
    items: list[Any] = [{"role": "user", "content": QUESTION}]
    tools: list[Any] = [{"type": "function", **each, "strict": False} for each in FUNCTIONS]
    asked: dict[str, Any] = GIVEN | {"tools": tools, "max_output_tokens": 300}

    def answer() -> Any:
        if not stream:
            return client.responses.create(input=items, **asked)
        with client.responses.stream(input=items, **asked) as parts:
            return parts.get_final_response()

    first = answer()
    (call,) = [item for item in first.output if item.type == "function_call"]
    assert call.name == CALLED
    items += first.output
    items.append({"type": "function_call_output", "call_id": call.call_id, "output": RESULT})
    assert answer().output_text == ANSWER


def test_chats_are_parsed_whole_and_streamed_sync_and_async(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = GIVEN | {"messages": ASK, "response_format": Sum, "max_tokens": 300}
    found = [client.chat.completions.parse(**asked)]
    with client.chat.completions.stream(**asked) as parts:
        kinds = {event.type for event in parts}
        found.append(parts.get_final_completion())
    assert {"content.delta", "content.done"} <= kinds

    async def ask(other: openai.AsyncOpenAI) -> list[Any]:
        whole = await other.chat.completions.parse(**asked)
        async with other.chat.completions.stream(**asked) as parts:
            return [whole, await parts.get_final_completion()]

    found += _with_async(client, ask)
    parsed = [each.choices[0].message.parsed for each in found]
    assert isinstance(parsed[0], Sum)
    assert parsed == parsed[:1] * 4


def test_responses_are_parsed_whole_and_streamed_sync_and_async(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = GIVEN | {"input": SUM, "text_format": Sum, "max_output_tokens": 300}
    found: list[Any] = [client.responses.parse(**asked)]
    with client.responses.stream(**asked) as parts:
        kinds = {event.type for event in parts}
        found.append(parts.get_final_response())
    assert {"response.output_text.delta", "response.completed"} <= kinds

    async def ask(other: openai.AsyncOpenAI) -> list[Any]:
        whole = await other.responses.parse(**asked)
        async with other.responses.stream(**asked) as parts:
            return [whole, await parts.get_final_response()]

    found += _with_async(client, ask)
    parsed = [each.output_parsed for each in found]
    assert isinstance(parsed[0], Sum)
    assert parsed == parsed[:1] * 4


@pytest.mark.parametrize("stream", [False, True])
def test_a_models_class_is_a_tool_whose_arguments_are_parsed(
    client: openai.OpenAI, stream: bool
) -> None:
    tool = openai.pydantic_function_tool(Add)
    asked: dict[str, Any] = GIVEN | {
        "messages": ASK,
        "tools": [tool],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "max_tokens": 300,
    }
    if stream:
        with client.chat.completions.stream(**asked) as parts:
            whole = parts.get_final_completion()
    else:
        whole = client.chat.completions.parse(**asked)
    (call,) = whole.choices[0].message.tool_calls or []
    assert isinstance(call.function.parsed_arguments, Add)
    assert json.loads(call.function.arguments) == call.function.parsed_arguments.model_dump()
