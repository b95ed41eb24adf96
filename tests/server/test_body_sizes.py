"""A body means the same whether a thread reads it, as small ones, or a process, as large ones."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from body_processes import Begun
from scripted_runtime import CODEC, EOS_ID, VOCAB

from lostwax.ir.contract.model import CHAT_V32
from lostwax.server.engine.failure_log import FailureLog
from lostwax.server.engine.messages import EngineInfo
from lostwax.server.gateway import body_process
from lostwax.server.gateway.body_reader import SMALL_BODY_BYTES, BodyReader, ReadingFailed
from lostwax.server.gateway.errors import ApiError
from lostwax.server.gateway.prepare import read_body
from lostwax.server.gateway.prepared import Answered, Job, Prepared, Refused, Route
from lostwax.server.told_fault import Fault

INFO = EngineInfo(
    model="fake",
    vocab_size=VOCAB,
    max_context=4096,
    max_reqs=1,
    max_top_logprobs=20,
    eos_token_ids=(EOS_ID,),
    chat_encoding=CHAT_V32,
)
CHAT = Job(route="chat", model="fake", info=INFO, max_tokens=4096)

TURN = '{"role":"user","content":"a"}'
ASK = f'"messages":[{TURN}]'
MOST = '{"type":"object","properties":{"a":{"maximum":18446744073709551616}}}'
"""No integer of 64 bits."""
TOOLS = f'"tools":[{{"type":"function","function":{{"name":"f","parameters":{MOST}}}}}]'
CALLED = '{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":%s}}]}'
RESULT = '{"role":"tool","content":"r"}'
NO_TEXT = '{"a":"\udcff"}'
"""A byte that is no UTF-8, in what requests keep as it came."""
HALF = '{"\\ud800":"\\udfff"}'


def _called(arguments: str) -> str:
    return f'{{"messages":[{TURN},{CALLED % arguments},{RESULT}]}}'


def _used(given: str) -> str:
    use = f'{{"type":"tool_use","id":"x","name":"f","input":{given}}}'
    result = '{"type":"tool_result","tool_use_id":"x","content":"r"}'
    turns = f'{{"role":"assistant","content":[{use}]}},{{"role":"user","content":[{result}]}}'
    return f'"messages":[{TURN},{turns}]'


BODIES: dict[str, tuple[Route, str]] = {
    "a tool": ("chat", f"{{{ASK},{TOOLS}}}"),
    "a tool that must be called": ("chat", f'{{{ASK},{TOOLS},"tool_choice":"required"}}'),
    "a schema of the answer": (
        "chat",
        f'{{{ASK},"response_format":{{"type":"json_schema","json_schema":{{"schema":{MOST}}}}}}}',
    ),
    "a schema in a message": (
        "chat",
        f'{{"messages":[{{"role":"system","content":"s","response_format":{MOST}}},{TURN}]}}',
    ),
    "arguments": ("chat", _called('{"a":18446744073709551616}')),
    "arguments as text": ("chat", _called('"{\\"a\\":18446744073709551616}"')),
    "half a character": ("chat", _called(HALF)),
    "half a character as text": ("chat", _called(msgspec.json.encode(HALF).decode())),
    "a tool of half a character": (
        "chat",
        f'{{{ASK},"tools":[{{"type":"function","function":{{"name":"f","parameters":{HALF}}}}}]}}',
    ),
    "no such field": ("chat", f'{{{ASK},"nothing":1}}'),
    "a huge seed": ("chat", f'{{{ASK},"seed":18446744073709551616}}'),
    "a tool to count": (
        "count_tokens",
        f'{{{ASK},"tools":[{{"name":"f","input_schema":{MOST}}}]}}',
    ),
    "a tool to tokenize": ("tokenize", f"{{{ASK},{TOOLS}}}"),
    "a message's tool": (
        "messages",
        f'{{"max_tokens":3,{ASK},"tools":[{{"name":"f","input_schema":{MOST}}}]}}',
    ),
    "a response's tool": (
        "responses",
        f'{{"input":"a","tools":[{{"type":"function","name":"f","parameters":{MOST}}}]}}',
    ),
    "Ollama's tool": ("ollama", f"{{{ASK},{TOOLS}}}"),
    "Ollama's schema": ("ollama", f'{{{ASK},"format":{MOST}}}'),
    "arguments of no text": ("chat", _called(NO_TEXT)),
    "a schema of no text": ("chat", f'{{{ASK},"guided_json":{NO_TEXT}}}'),
    "a generation's schema of no text": (
        "generate",
        f'{{"text":"a","sampling_params":{{"json_schema":{NO_TEXT}}}}}',
    ),
    "Ollama's schema of no text": ("ollama", f'{{{ASK},"format":{NO_TEXT}}}'),
    "Ollama's arguments of no text": ("ollama", _called(NO_TEXT)),
    "a message's input of no text": ("messages", f'{{"max_tokens":3,{_used(NO_TEXT)}}}'),
    "an input of no text to count": ("count_tokens", f"{{{_used(NO_TEXT)}}}"),
    "a generation's schema": (
        "generate",
        f'{{"text":"a","sampling_params":{{"json_schema":{MOST}}}}}',
    ),
}


async def _outcome(reader: BodyReader, route: Route, body: bytes) -> Any:
    """What comes of a body, but for names and seeds of requests, which are made up."""
    try:
        read = await reader.read(body, msgspec.structs.replace(CHAT, route=route))
    except ApiError as error:
        return error.status, error.code, error.param, error.message
    if isinstance(read, Answered):
        return read
    submits = [msgspec.structs.replace(each, request="", seed=0) for each in read.submits]
    return msgspec.structs.replace(read, submits=submits)


def test_a_body_means_the_same_however_large_it_is(bodies: Begun) -> None:
    async def read() -> None:
        reader = BodyReader(CODEC)
        try:
            await _outcome(reader, "chat", f"{{{ASK}}}".encode().ljust(SMALL_BODY_BYTES + 1))
            pids = bodies.pids
            for name, (route, text) in BODIES.items():
                small = text.encode(errors="surrogateescape")
                here = await _outcome(reader, route, small)
                there = await _outcome(reader, route, small.ljust(SMALL_BODY_BYTES + 1))
                assert here == there, name
                assert isinstance(here, Prepared | Answered) or here[0] == 400, name
                if not text.isascii():
                    assert isinstance(here, tuple), name
                    assert here[1] == "invalid_json", name
            assert bodies.pids == pids, "one ended"
        finally:
            await reader.stop()

    asyncio.run(read())


@pytest.mark.parametrize("route", get_args(Route))
def test_a_body_that_is_no_text_is_refused_before_it_is_read(route: Route) -> None:
    with pytest.raises(ApiError, match="byte 14 is no UTF-8") as refused:
        read_body(b'{"nothing": {"\xff": 1}}', msgspec.structs.replace(CHAT, route=route), CODEC)
    assert (refused.value.status, refused.value.code) == (400, "invalid_json")


FAULTY = """
import os
from pathlib import Path
from lostwax.server.gateway import body_process
def fail(body, *_):
    with Path(os.environ["BEGUN"]).open("a") as begun:
        begun.write("x")
    if b"end" in body:
        os._exit(1)
    raise TypeError("a fault of ours \\ud800")
body_process.read_body = fail
body_process.run()
"""


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Body processes that fail: the file has a letter for each body that they began."""
    (tmp_path / "faulty_body_process.py").write_text(FAULTY)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("BEGUN", str(tmp_path / "begun"))
    monkeypatch.setattr("lostwax.server.gateway.body_reader._MODULE", "faulty_body_process")
    return tmp_path / "begun"


def test_a_fault_in_a_process_is_logged_as_any_and_ends_no_process(
    bodies: Begun, begun: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []

    async def read() -> None:
        reader = BodyReader(CODEC)
        pids = set[int]()
        try:
            for _ in range(2):
                with pytest.raises(ReadingFailed) as failed:
                    await reader.read(b"{}".ljust(SMALL_BODY_BYTES + 1), CHAT)
                pids.update(bodies.pids)
                FailureLog(said.append)("internal error", failed.value)
        finally:
            await reader.stop()
        assert len(pids) == 1

    asyncio.run(read())
    assert begun.read_text() == "xx"
    assert said[0].startswith("internal error: ReadingFailed: TypeError: a fault of ours ?\n")
    assert 'raise TypeError("a fault of ours' in said[0]
    assert capfd.readouterr().err == "", "its log is the gateway's"


def test_a_body_that_ends_a_process_which_had_begun_is_given_to_no_other(begun: Path) -> None:
    async def read() -> None:
        reader = BodyReader(CODEC)
        try:
            with pytest.raises(ReadingFailed):
                await reader.read(b"{}".ljust(SMALL_BODY_BYTES + 1), CHAT)
            with pytest.raises(ApiError, match="ended; send less") as refused:
                await reader.read(b"end".ljust(SMALL_BODY_BYTES + 1), CHAT)
            assert (refused.value.status, refused.value.code) == (500, "internal_error")
        finally:
            await reader.stop()

    asyncio.run(read())
    assert begun.read_text() == "xx"


def test_what_no_frame_can_hold_is_a_fault_and_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Integers of more than 64 bits are JSON, and no msgpack."""
    content: Any = 2**64

    def read(*_: object) -> Answered:
        return Answered(content=content)

    monkeypatch.setattr(body_process, "read_body", read)
    frame = body_process.answer_of(b"", CHAT, CODEC, msgspec.msgpack.encode)
    fault = msgspec.msgpack.decode(frame, type=Prepared | Answered | Refused | Fault)
    assert isinstance(fault, Fault)
    assert fault.what.startswith("OverflowError: ")
