"""Tools of `/v1/chat/completions` in the forms that models write calls in, marks and all."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import httpx
import msgspec
import pytest
from fake_runtime import FakeLimits
from http_server import running
from scripted_runtime import CHATTING, VOCAB, ScriptedRuntime, chat_codec

from lostwax.ir.contract.model import CHAT_SPECIALE, CHAT_V31, CHAT_V32, CHAT_V32_EXP
from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.options import EngineOptions
from lostwax.server.formats.encoders import encode_chat
from lostwax.server.formats.encoding_v31 import TOOL_MARKS
from lostwax.server.gateway.app import Settings, create_app
from lostwax.server.gateway.in_process import InProcessEngine
from lostwax.server.gateway.tokenizer import TextCodec

CODEC = chat_codec(more=TOOL_MARKS)
SIZE = VOCAB + len(TOOL_MARKS)
ROOMY = FakeLimits(max_context=4096, page_tokens=16, num_pages=1025, vocab_size=SIZE)
ASK: list[Any] = [{"role": "user", "content": "2 + 3?"}]
TOOLS: list[Any] = [{"type": "function", "function": {"name": "add", "parameters": {}}}]
ARGUMENTS = ['{"a": 2}', "{}"]


@contextmanager
def _served(encoding: str, script: str, codec: TextCodec = CODEC) -> Generator[Any]:
    facts = msgspec.structs.replace(CHATTING, chat_encoding=encoding, vocab_size=SIZE)
    runtime = ScriptedRuntime(codec.encode_rendered(script), ROOMY, facts)
    core = EngineCore(runtime, EngineOptions(prefix_cache=False))
    with running(create_app(InProcessEngine(core), codec, Settings())) as url:

        def post(**given: Any) -> httpx.Response:
            body = {"messages": ASK, "tools": TOOLS, "temperature": 0} | given
            return httpx.post(f"{url}/v1/chat/completions", json=body, timeout=20)

        yield post, runtime


def _written(encoding: str) -> str:
    """What the model writes, as its history has it: two calls behind a word."""
    calls = [{"function": {"name": "add", "arguments": text}} for text in ARGUMENTS]
    told = {"role": "assistant", "content": "Sure.", "tool_calls": calls}
    asked, answered = (encode_chat(encoding, each, TOOLS) for each in (ASK, [*ASK, told]))
    return "".join(piece.text for piece in answered[len(asked) :]).partition("<｜end")[0]  # noqa: RUF001


@pytest.mark.parametrize("encoding", [CHAT_V32, CHAT_V31, CHAT_V32_EXP])
def test_a_call_is_read_as_its_model_writes_it(encoding: str) -> None:
    with _served(encoding, _written(encoding)) as (post, runtime):
        choice = post().json()["choices"][0]
        assert runtime.prompt == CODEC.encode_pieces(encode_chat(encoding, ASK, TOOLS))
        assert choice["message"]["content"] == "Sure."
        calls = [call["function"] for call in choice["message"]["tool_calls"]]
        assert calls == [{"name": "add", "arguments": text} for text in ARGUMENTS]
        assert choice["finish_reason"] == "tool_calls"
        assert 'finish_reason":"tool_calls' in post(stream=True).text
        told = post(tools=None).json()["choices"][0]
        assert told["message"]["content"] == _written(encoding)
        assert told["finish_reason"] == "stop"


@pytest.mark.parametrize("encoding", [CHAT_V32, CHAT_V31, CHAT_V32_EXP, CHAT_SPECIALE])
def test_a_last_message_is_continued_in_every_encoding(encoding: str) -> None:
    last = {"role": "assistant", "content": "It i"}
    with _served(encoding, "s.") as (post, runtime):
        given = {"messages": [*ASK, last], "continue_final_message": True, "tools": None}
        assert post(**given).json()["choices"][0]["message"]["content"] == "s."
        asked = encode_chat(encoding, ASK)
        assert runtime.prompt == CODEC.encode_pieces(asked) + CODEC.encode("It i")


def test_a_model_without_tools_says_so() -> None:
    with _served(CHAT_SPECIALE, "x") as (post, _):
        assert post(tools=None).status_code == 200
        answer = post()
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "messages")
        assert "trained without tools" in answer.json()["error"]["message"]


def test_tools_need_their_marks_in_the_tokenizer() -> None:
    codec = chat_codec(leave_out=TOOL_MARKS[2], more=TOOL_MARKS)
    with _served(CHAT_V31, "x", codec) as (post, _):
        assert post(tools=None).status_code == 200
        answer = post()
        assert answer.status_code == 400
        assert f"no token {TOOL_MARKS[2]}" in answer.json()["error"]["message"]


def test_a_system_messages_tools_are_offered_where_they_stand() -> None:
    offering: list[Any] = [{"role": "system", "content": "Be terse.", "tools": TOOLS}, *ASK]
    given: dict[str, Any] = {"messages": offering, "tools": None}
    with _served(CHAT_V32, _written(CHAT_V32)) as (post, runtime):
        choice = post(**given).json()["choices"][0]
        assert choice["finish_reason"] == "tool_calls"
        assert runtime.prompt == CODEC.encode_pieces(encode_chat(CHAT_V32, offering))
        choice = post(**given, tool_choice="none").json()["choices"][0]
        assert (choice["finish_reason"], "add" in choice["message"]["content"]) == ("stop", True)
        bare = [{"role": "system", "content": "Be terse."}, *ASK]
        assert runtime.prompt == CODEC.encode_pieces(encode_chat(CHAT_V32, bare))
        twice = post(messages=offering).json()["error"]
        assert "two tools have the name 'add'" in twice["message"]
        named = {"type": "function", "function": {"name": "sub"}}
        assert "no tool has the name" in post(**given, tool_choice=named).json()["error"]["message"]
    with _served(CHAT_V31, "x") as (post, _):
        assert post(**given).json()["error"]["param"] == "messages"


def test_a_schema_in_a_message_is_shown() -> None:
    schema = {"type": "array", "items": {"type": "integer"}}
    told: list[Any] = [{"role": "system", "content": "", "response_format": schema}, *ASK]
    with _served(CHAT_V32, "x") as (post, runtime):
        assert post(messages=told, tools=None).is_success
        assert runtime.prompt == CODEC.encode_pieces(encode_chat(CHAT_V32, told))
        for wrong in (5, [1], "x"):
            error = post(messages=[told[0] | {"response_format": wrong}, *ASK]).json()["error"]
            assert error["param"] == "messages[0].response_format"
        error = post(messages=[ASK[0] | {"response_format": schema}]).json()["error"]
        assert "a user message has no response_format" in error["message"]
