"""openai-python as people use it: async clients, the streaming helpers, raw responses, `parse`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from http_server import running
from openai.types.chat import ChatCompletion, ChatCompletionUserMessageParam
from pydantic import BaseModel
from scripted_runtime import CODEC, ScriptedRuntime

from lostwax.server.engine.loop import EngineCore
from lostwax.server.gateway.app import Settings, create_app
from lostwax.server.gateway.in_process import InProcessEngine

ASK: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": "How are you?"}]
SAID = "Grüße 🎉, fine."  # characters of two and four tokens
THINKING: dict[str, Any] = {"chat_template_kwargs": {"thinking": True}}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server that always says SAID."""
    runtime = ScriptedRuntime(script=CODEC.encode_rendered(SAID))
    app = create_app(InProcessEngine(EngineCore(runtime)), CODEC, Settings(model="m"))
    with running(app) as url:
        yield f"{url}/v1"


@pytest.fixture(scope="module")
def thinking_url() -> Iterator[str]:
    """One that reasons before."""
    runtime = ScriptedRuntime(script=CODEC.encode_rendered(f"Hm.</think>{SAID}"))
    app = create_app(InProcessEngine(EngineCore(runtime)), CODEC, Settings(model="m"))
    with running(app) as url:
        yield f"{url}/v1"


def _client(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=url, api_key="none", max_retries=0)


def test_the_streaming_helper_tells_of_parts_and_of_the_whole(url: str) -> None:
    said = ""
    kinds = set[str]()
    with _client(url).chat.completions.stream(
        model="m", messages=ASK, stream_options={"include_usage": True}, logprobs=True
    ) as stream:
        for event in stream:
            kinds.add(event.type)
            if event.type == "content.delta":
                said += event.delta
                assert event.snapshot == said
            if event.type == "content.done":
                assert event.content == SAID
        whole = stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done", "logprobs.content.delta"} <= kinds
    assert said == SAID
    (choice,) = whole.choices
    assert (choice.message.content, choice.finish_reason) == (SAID, "stop")
    assert choice.logprobs is not None
    scored = choice.logprobs.content or []
    assert bytes(b for token in scored for b in token.bytes or []).decode().startswith(SAID)
    assert whole.usage is not None
    # The end of the answer is a token, too.
    assert whole.usage.completion_tokens == len(scored) == len(CODEC.encode(SAID)) + 1


def test_the_streaming_helper_keeps_reasoning_apart(thinking_url: str) -> None:
    with _client(thinking_url).chat.completions.stream(
        model="m", messages=ASK, extra_body=THINKING
    ) as stream:
        message = stream.get_final_completion().choices[0].message
    assert message.content == SAID
    assert message.to_dict()["reasoning_content"] == "Hm."


def test_the_async_helper_streams_many_at_once(url: str) -> None:
    async def one(client: openai.AsyncOpenAI) -> str:
        async with client.chat.completions.stream(model="m", messages=ASK) as stream:
            whole = await stream.get_final_completion()
        return whole.choices[0].message.content or ""

    async def many() -> list[str]:
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
            return await asyncio.gather(*(one(client) for _ in range(12)))

    assert asyncio.run(many()) == [SAID] * 12


def test_the_async_client_asks_streams_and_leaves(url: str) -> None:
    async def all_ways() -> None:
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
            whole = await client.chat.completions.create(model="m", messages=ASK)
            assert whole.choices[0].message.content == SAID
            text = await client.completions.create(model="m", prompt="So", max_tokens=2)
            assert (text.choices[0].text, text.choices[0].finish_reason) == ("Gr", "length")
            parts = await client.completions.create(
                model="m", prompt="So", max_tokens=64, stream=True
            )
            assert "".join([part.choices[0].text async for part in parts]) == SAID
            left = await client.chat.completions.create(model="m", messages=ASK, stream=True)
            async for _ in left:
                break
            await left.close()
            assert [model.id async for model in client.models.list()] == ["m"]

    asyncio.run(all_ways())


def test_raw_and_streaming_responses_have_the_requests_id(url: str) -> None:
    chats = _client(url).chat.completions
    headers = {"X-Request-Id": "mine-1"}
    raw = chats.with_raw_response.create(model="m", messages=ASK, extra_headers=headers)
    assert raw.request_id == "mine-1"
    assert raw.parse().choices[0].message.content == SAID
    with chats.with_streaming_response.create(
        model="m", messages=ASK, stream=True, extra_headers=headers
    ) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.request_id == "mine-1"
        lines = [line for line in answer.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"


def test_the_async_streaming_response_can_be_read_in_parts(url: str) -> None:
    async def ask() -> bytes:
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
            chats = client.chat.completions.with_streaming_response
            async with chats.create(model="m", messages=ASK) as answer:
                return b"".join([part async for part in answer.iter_bytes(7)])

    assert ChatCompletion.model_validate_json(asyncio.run(ask())).choices


class Mood(BaseModel):
    """What a client wants to have parsed."""

    mood: str


def test_parse_works_without_a_format_and_needs_an_engine_that_follows_one(url: str) -> None:
    chats = _client(url).chat.completions
    message = chats.parse(model="m", messages=ASK).choices[0].message
    assert (message.content, message.parsed) == (SAID, None)
    with pytest.raises(openai.BadRequestError, match="no tokenizer") as refused:
        chats.parse(model="m", messages=ASK, response_format=Mood)
    assert refused.value.code == "unsupported_value"
