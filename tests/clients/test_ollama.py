"""Ollama's client against `/api/chat` and `/api/tags`: chats, streams, tools, thinking, formats."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import pytest
from call_texts import block, invoke, parameter
from pydantic import BaseModel
from scripted_server import ScriptedServer
from tiny_tools import ANSWER, CALLED, FUNCTIONS, QUESTION, RESULT

from lostwax.server.gateway import stream as streams

ollama: Any = pytest.importorskip("ollama", reason="it comes with `.ci/slow clients`")
pytestmark = pytest.mark.clients

CALL = block(invoke("add", parameter("a", "2", False), parameter("b", "3", False)))
ASK: list[Any] = [{"role": "user", "content": "2 + 3?"}]


class Sum(BaseModel):
    """The answer to a sum."""

    answer: int
    unit: Literal["apples", "pears"]


def add(a: int, b: int) -> int:
    """
    Add two numbers.

    Args:
        a: one
        b: the other
    """
    return a + b


def test_it_lists_asks_and_streams(scripted: ScriptedServer) -> None:
    client = ollama.Client(host=scripted.says("Grüße 🎉.").url)
    assert [each.model for each in client.list().models] == ["m"]
    options = {"temperature": 0, "num_predict": 40, "seed": 3}
    whole = client.chat(model="m", messages=ASK, options=options)
    assert whole.message.content == "Grüße 🎉."
    assert (whole.done, whole.done_reason) == (True, "stop")
    assert whole.eval_count == len("Grüße 🎉.".encode()) + 1
    assert whole.total_duration >= whole.prompt_eval_duration + whole.eval_duration > 0
    parts = list(client.chat(model="m", messages=ASK, options=options, stream=True))
    assert "".join(part.message.content for part in parts) == "Grüße 🎉."
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    assert parts[-1].eval_count == whole.eval_count
    assert parts[-1].prompt_eval_count == whole.prompt_eval_count


def test_lines_that_say_nothing_are_no_news(
    scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "QUIET_S", 0.001)
    call = block(invoke("add", parameter("a", "long " * 200)))
    client = ollama.Client(host=scripted.says(f"Sure.{call}").url)
    parts = list(client.chat(model="m", messages=ASK, tools=[add], stream=True))
    assert sum(not part.message.content for part in parts) > 2
    assert "".join(part.message.content for part in parts) == "Sure."
    (called,) = [call for part in parts for call in part.message.tool_calls or ()]
    assert called.function.arguments == {"a": "long " * 200}


@pytest.mark.parametrize("stream", [False, True])
def test_a_function_is_called_and_its_result_told(scripted: ScriptedServer, stream: bool) -> None:
    client = ollama.Client(host=scripted.says(f"Hm.</think>Sure.{CALL}").url)
    asked: Any = {"model": "m", "messages": list(ASK), "tools": [add], "think": True}
    found = client.chat(stream=stream, **asked)
    parts = list(found) if stream else [found]
    assert "".join(part.message.content for part in parts) == "Sure."
    assert "".join(part.message.thinking or "" for part in parts) == "Hm."
    (call,) = [call for part in parts for call in part.message.tool_calls or ()]
    assert (call.function.name, call.function.arguments) == ("add", {"a": 2, "b": 3})
    turn = {"role": "assistant", "content": "Sure.", "thinking": "Hm.", "tool_calls": [call]}
    result = {"role": "tool", "tool_name": "add", "content": str(add(**call.function.arguments))}
    asked["messages"] += [turn, result]
    scripted.says("So.</think>Five.")
    assert client.chat(**asked).message.content == "Five."


def test_the_async_client_streams(scripted: ScriptedServer) -> None:
    scripted.says("Fine.")

    async def ask() -> str:
        client = ollama.AsyncClient(host=scripted.url)
        parts = await client.chat(model="m", messages=ASK, stream=True)
        return "".join([part.message.content async for part in parts])

    assert asyncio.run(ask()) == "Fine."


def test_errors_say_what_is_wrong(scripted: ScriptedServer) -> None:
    client = ollama.Client(host=scripted.url)
    with pytest.raises(ollama.ResponseError, match="use 'm'") as refused:
        client.chat(model="other", messages=ASK)
    assert refused.value.status_code == 404
    with pytest.raises(ollama.ResponseError, match=r"options\.mirostat.*temperature"):
        client.chat(model="m", messages=ASK, options={"mirostat": 2})
    with pytest.raises(ollama.ResponseError, match=r"POST /api/embed"):
        client.embed(model="m", input="a")


def test_the_tiny_model_calls_a_tool_and_tells_its_result(tiny_url: str) -> None:
    client = ollama.Client(host=tiny_url)
    tools = [{"type": "function", "function": each} for each in FUNCTIONS]
    options = {"temperature": 0, "num_predict": 300}
    asked: dict[str, Any] = {"model": "tiny", "tools": tools, "options": options}
    turns: list[Any] = [{"role": "user", "content": QUESTION}]
    first = client.chat(messages=turns, **asked).message
    (call,) = first.tool_calls
    assert call.function.name == CALLED
    turns += [first, {"role": "tool", "tool_name": CALLED, "content": RESULT}]
    assert client.chat(messages=turns, **asked).message.content == ANSWER


@pytest.mark.parametrize("stream", [False, True])
def test_the_tiny_models_answer_has_the_form_that_was_asked_for(
    tiny_url: str, stream: bool
) -> None:
    client = ollama.Client(host=tiny_url)
    sums = [{"role": "user", "content": "What is 17 + 25?"}]
    asked: dict[str, Any] = {"model": "tiny", "messages": sums, "options": {"temperature": 0}}
    found = client.chat(format=Sum.model_json_schema(), stream=stream, **asked)
    text = "".join(part.message.content for part in (found if stream else [found]))
    assert isinstance(Sum.model_validate_json(text), Sum)
    with pytest.raises(ollama.ResponseError, match="'format'"):
        list(client.chat(format={"type": "nothing"}, stream=stream, **asked))
