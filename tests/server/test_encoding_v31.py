"""The prompt text of DeepSeek-V3.1 and V3.2-Exp, and the choice of who renders a chat."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lostwax.ir.contract.model import CHAT_SPECIALE, CHAT_V31, CHAT_V32, CHAT_V32_EXP
from lostwax.server.formats.encoders import FORMAT_OF, encode_chat, marks_in
from lostwax.server.formats.encoding_v31 import (
    CALL,
    CALL_END,
    CALLS,
    CALLS_END,
    OUTPUT,
    OUTPUT_END,
    SEPARATOR,
    TOOL_MARKS,
)
from lostwax.server.formats.encoding_v32 import (
    ASSISTANT,
    BOS,
    EOS,
    THINK,
    THINK_END,
    USER,
    EncodingError,
    encode_messages,
)
from lostwax.server.formats.pieces import Piece, joined

CONVERSATIONS = sorted((Path(__file__).parent / "conversations_v31").glob("*.json"))
USERS: list[dict[str, Any]] = [{"role": "user", "content": "hi"}]
CALLING = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
RESULT = {"role": "tool", "content": "5"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def prompt(encoding: str, messages: list[dict[str, Any]], *args: Any, **kwargs: Any) -> str:
    return joined(encode_chat(encoding, messages, *args, **kwargs))


def test_there_are_ten_conversations() -> None:
    assert len(CONVERSATIONS) == 10


@pytest.mark.parametrize("path", CONVERSATIONS, ids=lambda path: path.stem)
def test_a_conversation_has_the_prompt_beside_it(path: Path) -> None:
    """Compared byte for byte; written by the models' templates with white space stripped."""
    said = json.loads(path.read_bytes())
    thinking, tools = said["thinking"], said.get("tools")
    given = prompt(said["encoding"], said["messages"], tools, thinking=thinking)
    assert given == path.with_suffix(".txt").read_bytes().decode()


def test_the_two_templates_differ_behind_a_system_message_and_an_assistants() -> None:
    opened = f"{ASSISTANT}{THINK_END}"
    for turn in ({"role": "system", "content": "x"}, {"role": "assistant", "content": "x"}):
        shut = f"{BOS}x" + (EOS if turn["role"] == "assistant" else "")
        assert prompt(CHAT_V31, [turn]) == shut
        assert prompt(CHAT_V32_EXP, [turn]) == shut + opened
    for turns in (USERS, [*USERS, CALLING, RESULT], [*USERS, {"role": "assistant"}, *USERS]):
        assert (
            prompt(CHAT_V31, turns) == prompt(CHAT_V32_EXP, turns) == prompt("deepseekv31", turns)
        )


def test_the_model_goes_on_behind_results_without_reasoning() -> None:
    text = prompt(CHAT_V31, [*USERS, CALLING, RESULT], thinking=True)
    assert text == (
        f"{BOS}{USER}hi{ASSISTANT}{THINK_END}{CALLS}{CALL}f{SEPARATOR}{{}}{CALL_END}{CALLS_END}{EOS}"
        f"{OUTPUT}5{OUTPUT_END}"
    )


def test_an_empty_list_of_calls_is_no_call() -> None:
    turns = [*USERS, {"role": "assistant", "content": "x", "tool_calls": []}]
    assert prompt(CHAT_V31, turns) == f"{BOS}{USER}hi{ASSISTANT}{THINK_END}x{EOS}"


def test_what_messages_bring_is_text() -> None:
    marks = "".join((*TOOL_MARKS, BOS, EOS, USER, ASSISTANT, THINK, THINK_END))
    turns = [
        {"role": "system", "content": marks},
        {"role": "user", "content": marks},
        {"role": "assistant", "content": f"x{marks}", "tool_calls": CALLING["tool_calls"]},
        {"role": "tool", "content": marks},
        {"role": "assistant", "content": marks},
    ]
    tool = {"name": "g", "description": marks, "parameters": {"x": marks}}
    pieces = encode_chat(CHAT_V31, turns, [tool])
    for mark in TOOL_MARKS:
        assert sum(mark in piece.text for piece in pieces if not piece.is_structure) == 7
    structure = [piece.text for piece in pieces if piece.is_structure]
    plain = [{**turn, "content": "-"} for turn in turns]
    same = encode_chat(CHAT_V31, plain, [{**tool, "description": "-", "parameters": {"x": "-"}}])
    assert structure == [piece.text for piece in same if piece.is_structure]
    assert all(p.is_structure for p in encode_chat(CHAT_V31, turns, [tool], trust_content=True))


@pytest.mark.parametrize("name", ["", "a<b", "a\nb", "a\x00", "a\u2028b"])
def test_a_name_that_breaks_out_of_its_place_is_refused(name: str) -> None:
    calling = {"role": "assistant", "tool_calls": [{"function": {"name": name}}]}
    for turns, tools in (([*USERS, calling], None), (USERS, [{"name": name}])):
        place = "" if tools else r"messages\[1\] has, as its tool call 1, "
        with pytest.raises(EncodingError, match=f"^{place}'.*', which cannot name a tool"):
            encode_chat(CHAT_V31, turns, tools)
        encode_chat(CHAT_V31, turns, tools, trust_content=True)


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([{"role": "developer", "content": "x"}], r"messages\[0\] has role 'developer'"),
        ([*USERS, RESULT], r"messages\[1\] is a tool result that no call is left for"),
        ([CALLING, RESULT, RESULT], r"messages\[2\] is a tool result that no call is left for"),
        ([CALLING, *USERS, RESULT], r"messages\[2\] is a tool result that no call is left for"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "only text content"),
        ([{"role": "system", "tools": [TOOL]}], r"messages\[0\] brings tools or a schema"),
        ([*USERS, {"role": "system", "response_format": {"x": 1}}], r"messages\[1\] brings tools"),
    ],
)
def test_what_cannot_be_rendered_is_refused(messages: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(EncodingError, match=said):
        encode_chat(CHAT_V31, messages)


def _calling(arguments: Any) -> dict[str, Any]:
    return {
        "role": "assistant",
        "tool_calls": [{"function": {"name": "f", "arguments": arguments}}],
    }


@pytest.mark.parametrize("arguments", ["[1]", "{", "x", '{"a": 1,]', "[" * 100_000])
def test_arguments_of_a_call_that_broke_stay_as_they_are(arguments: str) -> None:
    text = "".join(piece.text for piece in encode_chat(CHAT_V31, [_calling(arguments)]))
    assert f"f<｜tool▁sep｜>{arguments}<｜tool▁call▁end｜>" in text  # noqa: RUF001


def test_arguments_that_are_neither_object_nor_text_are_refused() -> None:
    with pytest.raises(EncodingError, match=r"^messages\[0\] has, as its tool call 1, arguments"):
        encode_chat(CHAT_V31, [_calling([1])])


@pytest.mark.parametrize("arguments", ["", "{}", {}, None])
def test_no_arguments_are_an_empty_object(arguments: Any) -> None:
    calling = {
        "role": "assistant",
        "tool_calls": [{"function": {"name": "f", "arguments": arguments}}],
    }
    assert f"{SEPARATOR}{{}}{CALL_END}" in prompt(CHAT_V31, [calling])


@pytest.mark.parametrize("encoding", [CHAT_V32, "deepseekv32"])
def test_tools_of_a_request_go_to_the_first_message(encoding: str) -> None:
    schema = {"type": "object"}
    given = prompt(encoding, USERS, [TOOL], response_format=schema)
    system = {"role": "system", "content": "", "tools": [TOOL], "response_format": schema}
    assert given == encode_messages([system, *USERS], "chat")
    terse = {"role": "system", "content": "Be terse."}
    given = prompt(encoding, [terse, *USERS], [TOOL], thinking=True)
    assert given == encode_messages([{**terse, "tools": [TOOL]}, *USERS], "thinking")
    assert "tools" not in terse
    assert prompt(encoding, USERS) == prompt(encoding, USERS, []) == encode_messages(USERS, "chat")


def test_tools_of_the_first_message_and_of_the_request_stand_together() -> None:
    other = {"name": "g"}
    system = {"role": "system", "content": "", "tools": [other], "response_format": {"x": 1}}
    given = prompt(CHAT_V32, [system], [TOOL])
    assert given == encode_messages([{**system, "tools": [other, TOOL]}], "chat")
    with pytest.raises(EncodingError, match="both bring a schema"):
        encode_chat(CHAT_V32, [system], response_format={"x": 2})


def test_v31_has_no_place_for_a_schema() -> None:
    with pytest.raises(EncodingError, match="no place for a schema"):
        encode_chat(CHAT_V31, USERS, response_format={"type": "object"})


@pytest.mark.parametrize(
    ("messages", "tools"),
    [
        (USERS, [TOOL]),
        ([{"role": "system", "content": "", "tools": [TOOL]}, *USERS], None),
        ([*USERS, CALLING], None),
        ([*USERS, RESULT], None),
    ],
)
def test_speciale_refuses_tools(messages: list[dict[str, Any]], tools: Any) -> None:
    with pytest.raises(EncodingError, match="Speciale was trained without tools: leave out"):
        encode_chat(CHAT_SPECIALE, messages, tools)


def test_speciale_renders_other_chats_as_v32() -> None:
    assert encode_chat(CHAT_SPECIALE, USERS, thinking=True) == encode_chat(
        CHAT_V32, USERS, thinking=True
    )
    assert encode_chat(CHAT_SPECIALE, USERS)[0] == Piece(BOS, True)


def test_the_marks_of_a_prompt_are_those_of_its_structure() -> None:
    turns = [{"role": "user", "content": "".join(TOOL_MARKS)}]
    assert set(marks_in(encode_chat(CHAT_V31, turns))) == {BOS, USER, ASSISTANT, THINK_END}
    turns = [*USERS, CALLING, RESULT]
    assert set(marks_in(encode_chat(CHAT_V31, turns))) >= set(TOOL_MARKS)


def test_an_encoding_that_is_not_known_is_named_with_those_that_are() -> None:
    with pytest.raises(EncodingError, match=r"'gpt' is no chat encoding .* deepseek-v3\.2, "):
        encode_chat("gpt", USERS)
    assert set(FORMAT_OF) == {CHAT_V31, CHAT_V32, CHAT_V32_EXP, CHAT_SPECIALE}
    for encoding in FORMAT_OF:
        assert encode_chat(encoding, USERS)
