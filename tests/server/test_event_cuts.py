"""What the events of a stream add up to depends on the answer, never on the engine's outputs."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from call_texts import DSML_PIECES, REASONING_PIECES, V31_PIECES, block, invoke, v31
from scripted_runtime import chat_codec

from lostwax.server.engine.messages import Output, TokenScore
from lostwax.server.formats.encoders import Format
from lostwax.server.formats.encoding_v31 import CALL, SEPARATOR
from lostwax.server.gateway.anthropic_messages import MessageForm
from lostwax.server.gateway.chat import ChatForm
from lostwax.server.gateway.generation import Head, Usage
from lostwax.server.gateway.prepared import AnswerOptions, ChatTurn
from lostwax.server.gateway.responses import ResponseForm

CODEC = chat_codec()
TOOLS = ["f", "g", "get"]
BETWEEN = [v31("f", "{}"), "!", f"{CALL}g{SEPARATOR}", "{", v31("", "}").partition(SEPARATOR)[2]]
CASES: dict[str, tuple[Format, bool, list[str]]] = {
    "v31: text between": ("deepseekv31", False, BETWEEN),
    "dsml: text between": (
        "deepseekv32", False, ["a", block(invoke("f")), "b", block(invoke("g"))[:60],
                               block(invoke("g"))[60:], "c"],
    ),
    **{f"dsml: {name}": ("deepseekv32", False, p) for name, p in DSML_PIECES.items()},
    **{f"v31: {name}": ("deepseekv31", False, p) for name, p in V31_PIECES.items()},
    **{f"reasoning: {name}": ("deepseekv32", True, p) for name, p in REASONING_PIECES.items()},
}  # fmt: skip
HEAD = Head(id="x", model="m", created=0)


def _usage() -> Usage:
    return Usage(num_prompt=1, num_output=1, num_cached=0)


def _events(form: Any, outputs: list[list[int]]) -> Iterator[dict[str, Any]]:
    """The data of a stream's events, of outputs with these tokens."""
    wire, reader = form.wire(HEAD, _usage), form.readers[0]
    for number, tokens in enumerate(outputs):
        output = Output(
            request="r",
            tokens=[TokenScore(token, 0.0) for token in tokens],
            finish="stop" if number == len(outputs) - 1 else None,
        )
        for event in wire.events(0, reader.feed(output)):
            yield json.loads(event[event.index(b"{") :])
        if reader.finished:
            return


def _of_response(form: Any, outputs: list[list[int]]) -> Any:
    """The items as the events tell of them, each by its deltas, and as it ended."""
    told: list[list[Any]] = []
    for event in _events(form, outputs):
        kind = event["type"].removeprefix("response.")
        if kind == "output_item.added":
            told.append([event["item"]["type"], event["item"].get("name"), ""])
        elif kind.endswith(".delta"):
            told[event["output_index"]][2] += event["delta"]
            assert event["output_index"] == len(told) - 1
            is_call = told[-1][0] == "function_call"
            assert is_call == kind.startswith("function_call_arguments")
        elif kind == "output_item.done":
            told[-1].append(event["item"]["status"])
    return told


def _of_message(form: Any, outputs: list[list[int]]) -> Any:
    """The blocks as the events tell of them."""
    kinds = {"thinking": "thinking", "text": "text", "tool_use": "partial_json"}
    told: list[list[Any]] = []
    for event in _events(form, outputs):
        if event["type"] == "content_block_start":
            block = event["content_block"]
            told.append([block["type"], block.get("name"), ""])
        elif event["type"] == "content_block_delta":
            assert event["index"] == len(told) - 1
            told[-1][2] += event["delta"][kinds[told[-1][0]]]
    return told


def _of_chat(form: Any, outputs: list[list[int]]) -> Any:
    told: dict[Any, str] = {}
    for event in _events(form, outputs):
        said = event["choices"][0]["delta"]
        for name in ("reasoning_content", "content"):
            told[name] = told.get(name, "") + (said.get(name) or "")
        for call in said.get("tool_calls", ()):
            function = call["function"]
            told[call["index"]] = (
                told.get(call["index"], "") + function.get("name", "") + function["arguments"]
            )
    return told


def _form(name: str, turn: ChatTurn) -> Any:
    options = AnswerOptions(stream=True)
    if name == "responses":
        return ResponseForm(options, turn, CODEC, b'{"user":null}')
    return (MessageForm if name == "messages" else ChatForm)(options, turn, CODEC)


SUMS: dict[str, Callable[[Any, list[list[int]]], Any]] = {
    "responses": _of_response,
    "messages": _of_message,
    "chat": _of_chat,
}


def _cuts(pieces: list[str]) -> Iterator[list[str]]:
    """The whole, each piece, each two parts, each two of three borders that lie together."""
    yield ["".join(pieces)]
    yield pieces
    for at in range(1, len(pieces)):
        yield ["".join(pieces[:at]), "".join(pieces[at:])]
        yield [*pieces[:at], "".join(pieces[at : at + 3]), *pieces[at + 3 :]]
    chance = random.Random(15)
    for _ in range(20):
        text, parts = "".join(pieces), list[str]()
        while text:
            size = chance.randrange(1, 40)
            parts.append(text[:size])
            text = text[size:]
        yield parts


@pytest.mark.parametrize("one_call", [False, True])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("interface", SUMS)
def test_events_add_up_to_the_same(interface: str, case: str, one_call: bool) -> None:
    format, thinks, pieces = CASES[case]
    turn = ChatTurn(thinks=thinks, format=format, tools=TOOLS, one_call=one_call)
    expected: Any = None
    for parts in _cuts(pieces):
        outputs = [CODEC.encode_rendered(part) for part in parts]
        found = SUMS[interface](_form(interface, turn), outputs)
        expected = found if expected is None else expected
        assert found == expected, parts


def test_text_between_two_calls_stands_between_them() -> None:
    """Also where one output brings it with the next call, whose name it must not take."""
    turn = ChatTurn(format="deepseekv31", tools=TOOLS)
    outputs = [CODEC.encode_rendered(part) for part in (BETWEEN[0], "".join(BETWEEN[1:]))]
    assert _of_response(_form("responses", turn), outputs) == [
        ["function_call", "f", "{}", "completed"],
        ["message", None, "!", "completed"],
        ["function_call", "g", "{}", "completed"],
    ]
    assert _of_message(_form("messages", turn), outputs) == [
        ["tool_use", "f", "{}"], ["text", None, "!"], ["tool_use", "g", "{}"],
    ]  # fmt: skip


def test_one_call_ends_the_answer_whatever_stands_behind_it_in_its_output() -> None:
    turn = ChatTurn(format="deepseekv31", tools=TOOLS, one_call=True)
    outputs = [CODEC.encode_rendered("".join(["Hi ", *BETWEEN]))]
    assert _of_chat(_form("chat", turn), outputs)["content"] == "Hi "
