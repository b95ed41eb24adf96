"""The smallest loop of openai-agents: a tool is called, its result told, an answer given. Over
`/v1/responses` and over chat completions, whole and streamed. It reports to nobody."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest
from call_texts import block, invoke, parameter
from scripted_server import ScriptedServer
from tiny_tools import ANSWER, CALLED, FUNCTIONS, QUESTION, RESULT

agents: Any = pytest.importorskip("agents", reason="it comes with `.ci/slow clients`")
pytestmark = pytest.mark.clients

CALL = block(invoke("add", parameter("a", "2", False), parameter("b", "3", False)))
QUIET = agents.RunConfig(tracing_disabled=True)
ROADS = {
    "responses": agents.OpenAIResponsesModel,
    "chats": agents.OpenAIChatCompletionsModel,
}


@pytest.fixture(autouse=True, scope="module")
def _no_traces() -> None:  # pyright: ignore[reportUnusedFunction]
    agents.set_tracing_disabled(True)


def _run(url: str, road: str, name: str, question: str, stream: bool, **given: Any) -> Any:
    """What a run of an agent over this model gives."""

    async def run() -> Any:
        client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        async with client:
            agent = agents.Agent(
                name="Helper", model=ROADS[road](model=name, openai_client=client), **given
            )
            if not stream:
                return await agents.Runner.run(agent, question, run_config=QUIET)
            result = agents.Runner.run_streamed(agent, question, run_config=QUIET)
            async for _ in result.stream_events():
                pass
            return result

    return asyncio.run(run())


@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_an_agent_calls_its_tool_and_answers(
    scripted: ScriptedServer, road: str, stream: bool
) -> None:
    given = list[tuple[int, int]]()

    @agents.function_tool
    def add(a: int, b: int) -> int:  # pyright: ignore[reportUnusedFunction]
        """Add two numbers."""
        given.append((a, b))
        scripted.says("Five.")
        return a + b

    # Its tools are strict unless it is told otherwise, and this server follows no grammar.
    add.strict_json_schema = False
    scripted.says(f"Sure.{CALL}")
    result = _run(
        scripted.url, road, "m", "2 + 3?", stream, instructions="Use the tool.", tools=[add],
        model_settings=agents.ModelSettings(include_usage=True),
    )  # fmt: skip
    assert given == [(2, 3)]
    assert result.final_output == "Five."
    kinds = [item.type for item in result.new_items]
    assert kinds == [
        "message_output_item",
        "tool_call_item",
        "tool_call_output_item",
        "message_output_item",
    ]
    usage = result.context_wrapper.usage
    assert usage.requests == 2
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens > 100


@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize("strict", [False, True], ids=["free", "strict"])
def test_an_agent_over_the_tiny_model_runs_to_its_answer(
    tiny_url: str, road: str, strict: bool
) -> None:
    called = list[str]()

    def tool(function: dict[str, Any]) -> Any:
        async def run(_: Any, arguments: str) -> str:
            called.append(function["name"])
            return RESULT

        return agents.FunctionTool(
            name=function["name"],
            description=function["description"],
            params_json_schema=function["parameters"] | {"additionalProperties": False}
            if strict
            else function["parameters"],
            on_invoke_tool=run,
            strict_json_schema=strict,
        )

    result = _run(
        tiny_url,
        road,
        "tiny",
        QUESTION,
        True,
        tools=[tool(function) for function in FUNCTIONS],
        model_settings=agents.ModelSettings(temperature=0, max_tokens=300),
    )
    assert called == [CALLED]
    if not strict:  # the schemas are not those of its training
        assert result.final_output == ANSWER
