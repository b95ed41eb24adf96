"""LangChain's ChatOpenAI, over chats and over responses: answers, streams, tools, forms."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Literal

import pytest
from call_texts import block, invoke, parameter
from pydantic import BaseModel
from scripted_server import ScriptedServer
from tiny_tools import ANSWER, CALLED, FUNCTIONS, QUESTION, RESULT

langchain: Any = pytest.importorskip("langchain_openai", reason="it comes with `.ci/slow clients`")
messages: Any = pytest.importorskip("langchain_core.messages")
pytestmark = pytest.mark.clients

CALL = block(invoke("add", parameter("a", "2", False), parameter("b", "3", False)))
TWO = block(
    invoke("add", parameter("a", "2", False), parameter("b", "3", False)),
    invoke("add", parameter("a", "4", False), parameter("b", "5", False)),
)
both_roads = pytest.mark.parametrize("responses", [False, True], ids=["chats", "responses"])


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


class Sum(BaseModel):
    """The answer to a sum."""

    answer: int
    unit: Literal["apples", "pears"]


def _model(url: str, name: str = "m", **given: Any) -> Any:
    return langchain.ChatOpenAI(
        model=name, base_url=f"{url}/v1", api_key="none", max_retries=0, temperature=0, **given
    )


@both_roads
def test_it_asks_and_streams(scripted: ScriptedServer, responses: bool) -> None:
    model = _model(
        scripted.says("Grüße 🎉, fine.").url, use_responses_api=responses, stream_usage=True
    )
    told = [("system", "Be terse."), ("human", "How are you?")]
    whole = model.invoke(told)
    assert whole.text == "Grüße 🎉, fine."
    parts = list(model.stream(told))
    assert len(parts) > 5
    assert "".join(part.text for part in parts) == whole.text
    streamed = parts[0]
    for part in parts[1:]:
        streamed += part
    assert streamed.usage_metadata == whole.usage_metadata
    assert whole.usage_metadata["output_tokens"] == len(whole.text.encode()) + 1
    assert [each.text for each in model.batch(["a", "b"])] == [whole.text] * 2


def test_it_asks_and_streams_async(scripted: ScriptedServer) -> None:
    scripted.says("Fine.")

    async def all_ways() -> list[str]:  # in one loop: models of one address share connections
        said = list[str]()
        for responses in (False, True):
            model = _model(scripted.url, use_responses_api=responses)
            said.append((await model.ainvoke("How are you?")).text)
            said.append("".join([part.text async for part in model.astream("So?")]))
        return said

    assert asyncio.run(all_ways()) == ["Fine."] * 4


@both_roads
def test_tools_are_called_and_their_results_told(scripted: ScriptedServer, responses: bool) -> None:
    model = _model(scripted.says(f"Sure.{TWO}").url, use_responses_api=responses)
    bound = model.bind_tools([add])
    asked: list[Any] = [messages.HumanMessage("2 + 3? 4 + 5?")]
    called = bound.invoke(asked)
    assert called.text == "Sure."
    assert [(call["name"], call["args"]) for call in called.tool_calls] == [
        ("add", {"a": 2, "b": 3}),
        ("add", {"a": 4, "b": 5}),
    ]
    assert called.invalid_tool_calls == []
    streamed: Any = None
    for part in bound.stream(asked):
        streamed = part if streamed is None else streamed + part
    assert [call["args"] for call in streamed.tool_calls] == [
        call["args"] for call in called.tool_calls
    ]
    for history in (called, streamed):
        results = [
            messages.ToolMessage(str(add(**call["args"])), tool_call_id=call["id"])
            for call in history.tool_calls
        ]
        scripted.says("Five and nine.")
        assert bound.invoke([*asked, history, *results]).text == "Five and nine."


@pytest.mark.parametrize("end", [parameter("b", "3"), "", "a text"])
@both_roads
def test_a_call_that_breaks_is_not_run_in_streams_either(
    scripted: ScriptedServer, responses: bool, end: str
) -> None:
    """It completes arguments that are cut, and takes none at all for no arguments."""
    head = '<｜DSML｜invoke name="add">'  # noqa: RUF001
    broken = invoke("add", parameter("b", "2"), end) if end else head
    said = block(invoke("add", parameter("a", "2", False), parameter("b", "3", False)), broken)
    bound = _model(scripted.says(said).url, use_responses_api=responses).bind_tools([add])
    called = bound.invoke("2 + 3?")
    streamed: Any = None
    for part in bound.stream("2 + 3?"):
        streamed = part if streamed is None else streamed + part
    scripted.says("Five.")
    for answer in (called, streamed):
        (call,) = answer.tool_calls
        assert call["args"] == {"a": 2, "b": 3}
        # Its agents run what is whole, and send all of it back.
        result = messages.ToolMessage("5", tool_call_id=call["id"])
        assert bound.invoke([messages.HumanMessage("2 + 3?"), answer, result]).text == "Five."
        failed = [
            messages.ToolMessage("no JSON", tool_call_id=each["id"])
            for each in answer.invalid_tool_calls
        ]
        history = [messages.HumanMessage("2 + 3?"), answer, result, *failed]
        assert bound.invoke(history).text == "Five."


def test_reasoning_does_not_disturb_it(scripted: ScriptedServer) -> None:
    given: Any = {"extra_body": {"chat_template_kwargs": {"thinking": True}}}
    model = _model(scripted.says("Hm.</think>Five.").url, **given)
    assert model.invoke("2 + 3?").text == "Five."
    assert "".join(part.text for part in model.stream("2 + 3?")) == "Five."
    model = _model(scripted.url, reasoning={"effort": "medium"}, use_responses_api=True)
    answer = model.invoke("2 + 3?")
    assert answer.text == "Five."
    assert answer.usage_metadata["output_token_details"]["reasoning"] > 0


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
@both_roads
def test_the_tiny_models_answer_has_the_form_that_was_asked_for(
    tiny_url: str, method: str, responses: bool
) -> None:
    model = _model(tiny_url, "tiny", max_tokens=300, use_responses_api=responses)
    asking = model.with_structured_output(Sum, method=method, strict=True)
    assert isinstance(asking.invoke("What is 17 + 25?"), Sum)


@both_roads
def test_the_tiny_models_answer_is_json(tiny_url: str, responses: bool) -> None:
    model = _model(tiny_url, "tiny", max_tokens=300, use_responses_api=responses)
    schema = {
        "type": "object",
        "properties": {"title": {"type": "string"}, "city": {"type": "string"}},
        "required": ["title", "city"],
    }
    asked = f"Answer in JSON with this schema: {json.dumps(schema)}\n"
    asked += "All of it is in Berlin. The title is named Deep Lion."
    found = model.with_structured_output(None, method="json_mode").invoke(asked)
    assert found == {"title": "Deep Lion", "city": "Berlin"}


@both_roads
def test_the_tiny_model_calls_a_tool_and_tells_its_result(tiny_url: str, responses: bool) -> None:
    model = _model(tiny_url, "tiny", max_tokens=300, use_responses_api=responses)
    bound = model.bind_tools([{"type": "function", "function": each} for each in FUNCTIONS])
    asked: list[Any] = [messages.HumanMessage(QUESTION)]
    called = bound.invoke(asked)
    (call,) = called.tool_calls
    assert call["name"] == CALLED
    result = messages.ToolMessage(RESULT, tool_call_id=call["id"])
    assert bound.invoke([*asked, called, result]).text == ANSWER
