"""A stream in which nothing comes says that it lives, by a sign that is no news to its clients."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncGenerator, Callable, Iterator
from functools import partial
from typing import Any

import pytest
from call_texts import block, invoke, parameter
from fake_runtime import FakeLimits
from http_server import running
from scripted_runtime import CODEC, VOCAB, ScriptedRuntime
from scripted_server import ScriptedServer
from starlette.types import Message

from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.options import EngineOptions
from lostwax.server.gateway import stream
from lostwax.server.gateway.anthropic_messages import MessageWire
from lostwax.server.gateway.app import Settings, create_app
from lostwax.server.gateway.errors import ApiError
from lostwax.server.gateway.generation import Head, Usage
from lostwax.server.gateway.in_process import InProcessEngine
from lostwax.server.gateway.ollama import OllamaForm, OllamaWire
from lostwax.server.gateway.prepared import AnswerOptions, ChatTurn
from lostwax.server.gateway.stream import PARTS, UNNAMED, EventStream, Framing

HEAD = Head(id="x", model="m", created=0)
TURN = ChatTurn(
    thinks=False, splits_reasoning=True, silent=frozenset(), ends=frozenset(), format="none",
    tools=[], one_call=False, joined=False,
)  # fmt: skip
EMPTY_LINE = (
    b'{"model":"m","created_at":"1970-01-01T00:00:00Z",'
    b'"message":{"role":"assistant","content":""},"done":false}\n'
)
PING = b'event: ping\ndata: {"type": "ping"}\n\n'


def _ollama() -> OllamaWire:
    (reader,) = OllamaForm(AnswerOptions(), TURN, CODEC).readers
    return OllamaWire(reader, HEAD, lambda: Usage(1, 0, 1))


SIGNS: dict[str, tuple[Framing, bytes, bytes]] = {
    "chats": (UNNAMED, b":\n\n", b":\n\n"),
    "messages": (MessageWire.framing, b":\n\n", PING),
    "ollama": (_ollama().framing, EMPTY_LINE, EMPTY_LINE),
}


Write = Callable[[list[bytes], bytes], bool]


def _sent(
    framing: Framing, events: Any, write: Write | None = None, leaves_after: int | None = None
) -> list[bytes]:
    """The parts of the body of a stream of `events`, a function of the parts so far. The client
    leaves after so many."""
    parts = list[bytes]()

    async def receive() -> Message:
        await _until(parts, leaves_after if leaves_after is not None else sys.maxsize)
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            parts.append(message["body"])

    async def run() -> None:
        extensions = {} if write is None else {PARTS: partial(write, parts)}
        scope = {"type": "http", "extensions": extensions, "state": {"request_id": "r"}}
        async with asyncio.timeout(20):
            await EventStream(events(parts), lambda: None, framing)(scope, receive, send)
        num_parts = len(parts)
        await asyncio.sleep(4 * stream.QUIET_S)
        assert len(parts) == num_parts, "a sign of life behind the end"

    asyncio.run(run())
    return parts


async def _until(parts: list[bytes], count: int) -> None:
    while len(parts) < count:
        await asyncio.sleep(0.001)


def _written(parts: list[bytes], part: bytes) -> bool:
    parts.append(part)
    return True


def _full(parts: list[bytes], part: bytes) -> bool:
    return False


@pytest.mark.parametrize("write", [None, _written, _full], ids=["sent", "both", "full"])
@pytest.mark.parametrize("name", SIGNS)
def test_signs_stand_before_between_and_never_behind_events(
    monkeypatch: pytest.MonkeyPatch, name: str, write: Write | None
) -> None:
    monkeypatch.setattr(stream, "QUIET_S", 0.01)
    framing, waits, lives = SIGNS[name]

    async def events(parts: list[bytes]) -> AsyncGenerator[bytes]:
        await _until(parts, 2)
        yield b"1"
        await _until(parts, len(parts) + 3)
        yield b"2"

    sent = _sent(framing, events, write)
    first, second = (
        sent.index(b"%b%b%b" % (framing.prefix, e, framing.between)) for e in (b"1", b"2")
    )
    assert set(sent[:first]) == {waits}
    assert set(sent[first + 1 : second]) == {lives}
    assert sent[second + 1 :] == [framing.done, b""][not framing.done :]


@pytest.mark.parametrize("name", SIGNS)
def test_no_sign_comes_behind_an_error(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(stream, "QUIET_S", 0.01)
    framing, _, lives = SIGNS[name]
    error = ApiError(500, "it ended")

    async def events(parts: list[bytes]) -> AsyncGenerator[bytes]:
        yield b"1"
        await _until(parts, 3)
        raise error

    sent = _sent(framing, events)
    assert sent[-2:] == [framing.error(error), b""]
    assert set(sent[1:-2]) == {lives}


@pytest.mark.parametrize("name", SIGNS)
def test_no_sign_comes_behind_a_client_that_left(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(stream, "QUIET_S", 0.01)

    async def events(_: list[bytes]) -> AsyncGenerator[bytes]:
        yield b"1"
        await asyncio.sleep(60)

    framing, _, lives = SIGNS[name]
    sent = _sent(framing, events, leaves_after=3)
    assert set(sent[1:]) == {lives}


def test_a_stream_in_which_events_come_has_no_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "QUIET_S", 0.4)

    async def events(_: list[bytes]) -> AsyncGenerator[bytes]:
        for _number in range(10):
            await asyncio.sleep(0.05)
            yield b"e"

    assert _sent(UNNAMED, events) == [b"data: e\n\n"] * 10 + [UNNAMED.done, b""]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    monkeypatch.setattr(stream, "QUIET_S", 0.002)
    roomy = FakeLimits(max_context=8192, page_tokens=16, num_pages=2049, vocab_size=VOCAB)
    runtime = ScriptedRuntime(limits=roomy)
    core = EngineCore(runtime, EngineOptions(prefix_cache=False))
    with running(create_app(InProcessEngine(core), CODEC, Settings(model="m"))) as url:
        yield ScriptedServer(runtime, url).says(f"So.{LONG_CALL}")


LONG_CALL = block(invoke("add", parameter("a", "long " * 400)))


def test_a_message_has_pings_while_its_call_is_written(server: ScriptedServer) -> None:
    add = {"name": "add", "input_schema": {"type": "object"}}
    asked = [{"role": "user", "content": "?"}]
    body = {"messages": asked, "max_tokens": 4000, "tools": [add], "stream": True}
    answer = server.send("/v1/messages", body)
    kinds = [line[7:] for line in answer.text.splitlines() if line.startswith("event: ")]
    assert kinds[0] == "message_start"
    calls = len(kinds) - 1 - kinds[::-1].index("content_block_start")
    assert "ping" in kinds[kinds.index("content_block_delta") : calls]
    assert [kind for kind in kinds if kind != "ping"].count("content_block_start") == 2
    assert [kind for kind in kinds if kind != "ping"][-2:] == ["message_delta", "message_stop"]


def test_ollamas_lines_say_nothing_while_a_call_is_written(server: ScriptedServer) -> None:
    add = {"type": "function", "function": {"name": "add"}}
    answer = server.send(
        "/api/chat", {"messages": [{"role": "user", "content": "?"}], "tools": [add]}
    )
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert "".join(line["message"]["content"] for line in lines) == "So."
    assert sum(not line["message"]["content"] for line in lines) > 2
    assert sum("tool_calls" in line["message"] for line in lines) == 1


def test_openais_client_passes_over_signs(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "QUIET_S", 0.0005)
    asked: list[Any] = [{"role": "user", "content": "?"}]
    add: Any = {"name": "add", "parameters": {"type": "object"}}
    told: Any = {"messages": asked, "tools": [{"type": "function", "function": add}]}
    raw = server.send("/v1/chat/completions", {"stream": True, **told}).text
    assert "\n\n:\n\n" in raw
    chunks = server.client.chat.completions.create(model="m", stream=True, **told)
    calls: list[Any] = [
        call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or ()
    ]
    arguments = "".join(call.function.arguments for call in calls)
    assert json.loads(arguments) == {"a": "long " * 400}
    flat: list[Any] = [{"type": "function", **add}]
    with server.client.responses.stream(model="m", input="?", tools=flat) as events:
        last = events.get_final_response()
    assert last.output_text == "So."
