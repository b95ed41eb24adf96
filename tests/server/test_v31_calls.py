"""V3.1's tool calls: which texts are calls, what is passed on meanwhile, and what stays text."""

from __future__ import annotations

import json
from typing import Any

import pytest
from call_texts import read, v31
from hypothesis import given
from hypothesis import strategies as st

from lostwax.server.formats.encoding_v31 import (
    CALL,
    CALL_END,
    CALLS,
    CALLS_END,
    SEPARATOR,
    encode_v31,
)
from lostwax.server.formats.encoding_v32 import EOS, THINK_END
from lostwax.server.formats.message import CallDelta, MessageDelta, whole_message
from lostwax.server.formats.pieces import joined
from lostwax.server.formats.readers import reader_of


def parse(text: str, **options: Any) -> tuple[str, list[tuple[str, str]], str]:
    """Content, calls with the text of their arguments, and what was malformed."""
    reader = reader_of("deepseekv31", thinks=False, **options)
    message = whole_message(reader, text)
    assert reader.num_calls == len(message.calls)
    calls = [(str(call.name), call.arguments) for call in message.calls]
    return message.content, calls, reader.broken


ONE = v31("f", '{"a": 1}')
F, G = v31("f", "{}"), v31("g", "{}")
NAMELESS = v31("", "{}")
MARKS = f'{{"a": "{CALL_END}{CALLS_END}\\"}}"}}'
WHOLE: dict[str, tuple[str, str, list[tuple[str, str]]]] = {
    "no call": ("plain\n\n", "plain\n\n", []),
    "one": (f"Hi\n\n{CALLS}{ONE}{CALLS_END}", "Hi\n\n", [("f", '{"a": 1}')]),
    "two": (f"{CALLS}{F}{G}{CALLS_END}", "", [("f", "{}"), ("g", "{}")]),
    "marks in a string": (CALLS + v31("f", MARKS) + CALLS_END, "", [("f", MARKS)]),
    "white space": (
        f"{CALLS}\n{CALL}f{SEPARATOR}\n{{ }}\n{CALL_END}\n{CALLS_END}\n",
        "",
        [("f", "{ }")],
    ),
    "bare": (f"Hi {F}\n{G}", "Hi ", [("f", "{}"), ("g", "{}")]),
    "unclosed block": (f"{CALLS}{F}", "", [("f", "{}")]),
    "text around": (
        f"a{CALLS}{F}{CALLS_END}\nb{G} c",
        "a\nb c",
        [("f", "{}"), ("g", "{}")],
    ),
    "a name of spaces and signs": (v31("my tool-1.é", "{}"), "", [("my tool-1.é", "{}")]),
    "parts of marks": ("<｜tool▁x｜> <｜", "<｜tool▁x｜> <｜", []),  # noqa: RUF001
}


@pytest.mark.parametrize("name", WHOLE)
def test_calls_and_the_text_around_them(name: str) -> None:
    text, content, calls = WHOLE[name]
    assert parse(text) == (content, calls, "")


NO_OBJECT = "the arguments of 'f' are no JSON object"
MALFORMED = {
    f"{CALLS}{CALLS_END}": "a block of calls holds none",
    f"{CALLS}so": "a block of calls holds something else",
    f"{CALLS}{NAMELESS}": "a call names no tool",
    f"{CALLS}{CALL}a\nb{SEPARATOR}": "a call has no name, or one that holds a mark",
    f"{CALLS}{CALL}a<b{SEPARATOR}": "a call has no name, or one that holds a mark",
    f"{CALLS}{CALL}f{CALL_END}": "a call has no name, or one that holds a mark",
    CALLS_END: "no call begins with this mark",
    SEPARATOR: "no call begins with this mark",
    CALL_END: "no call begins with this mark",
    v31("f", "[1]"): NO_OBJECT,
    v31("f", '["a": 1}'): NO_OBJECT,
    v31("f", ""): NO_OBJECT,
    v31("f", '{"a": }'): NO_OBJECT,
    v31("f", '{"a": 1, "a": 2}'): f"{NO_OBJECT}: a key stands twice",
    v31("f", '{"a": NaN}'): NO_OBJECT,
    v31("f", "{} {}"): "the call of 'f' holds more than its JSON object",
    v31("f", "{}}"): "the call of 'f' holds more than its JSON object",
    v31("f", '```json\n{"a": 1}\n```'): NO_OBJECT,
}
CUT_OFF = (
    CALLS, f"{CALLS}\n", f"{CALLS}{CALL[:4]}", CALL, f"{CALL}f", f"{CALL}f{SEPARATOR}",
    f'{CALL}f{SEPARATOR}{{"a": "x', f"{CALL}f{SEPARATOR}{{}}", v31("f", "{}")[:-1],
)  # fmt: skip


@pytest.mark.parametrize("text", MALFORMED)
def test_a_malformed_call_is_text_and_no_call(text: str) -> None:
    before = f"{CALLS}{F}{CALLS_END}"
    content, calls, broken = parse(f"Hi{text} so")
    assert (content, calls) == (f"Hi{text} so", [])
    assert MALFORMED[text] in broken
    content, calls, broken = parse(f"Hi{before}\n{text}{before}")
    assert (content, calls) == (f"Hi\n{text}{before}", [("f", "{}")])
    assert MALFORMED[text] in broken


@pytest.mark.parametrize("text", CUT_OFF)
def test_a_call_that_is_cut_off_is_text_and_no_call(text: str) -> None:
    assert parse(f"Hi\n\n{text}") == (f"Hi\n\n{text}", [], "the answer ends inside a call")


def test_a_tool_that_was_not_offered_is_text() -> None:
    text = f"{CALLS}{G}{CALLS_END}"
    assert parse(text, tools=[{"name": "f"}]) == (text, [], "the tool 'g' was not offered")
    assert parse(text, tools=[{"function": {"name": "g"}}])[1] == [("g", "{}")]


def test_a_call_outside_a_block_is_text_where_only_blocks_count() -> None:
    text = v31("f", "{}")
    assert parse(text, bare=False) == (text, [], "no call begins with this mark")


def test_arguments_stream_while_they_come_and_close_with_the_call() -> None:
    reader = reader_of("deepseekv31", thinks=False)
    assert not reader.push(f"Hi{CALLS}{CALL}f").calls
    assert reader.push(SEPARATOR).calls == [CallDelta(0, "f")]
    assert reader.push('{"a": [1').calls == [CallDelta(0, None, '{"a": [1')]
    assert reader.push("2").calls == [CallDelta(0, None, "2")]
    assert reader.push("]}").calls == [CallDelta(0, None, "]")]
    assert reader.push(CALL_END[:-1]) == MessageDelta()
    assert reader.num_calls == 0
    assert reader.push(CALL_END[-1]).calls == [CallDelta(0, None, "}")]
    assert reader.num_calls == 1
    assert reader.finish() == MessageDelta()


@pytest.mark.parametrize("value", ["{1}", "{}x}", '{"a": 1}}', '{"a": 1, }', '{"a": 1, "a": 2}'])
def test_what_was_passed_on_of_a_malformed_call_is_never_whole(value: str) -> None:
    reader = reader_of("deepseekv31", thinks=False)
    message = read(reader, list(v31("f", value)))
    assert (reader.num_calls, message.content) == (0, v31("f", value))
    with pytest.raises(ValueError, match=r"."):
        json.loads(message.calls[0].arguments)


plain = st.text(st.characters(codec="utf-8"), max_size=12)
arguments = st.dictionaries(plain, plain | st.none() | st.lists(st.integers()), max_size=3)
names = st.text("fgh_-.", min_size=1, max_size=3)


@given(before=plain, calls=st.lists(st.tuples(names, arguments), min_size=1, max_size=3))
def test_what_the_encoder_writes_is_read_back(before: str, calls: list[tuple[str, Any]]) -> None:
    told = [{"function": {"name": name, "arguments": given}} for name, given in calls]
    turns: list[dict[str, Any]] = [
        {"role": "user", "content": ""},
        {"role": "assistant", "content": before, "tool_calls": told},
    ]
    prompt = joined(encode_v31(turns, None, thinking=False, exp=False))
    content, read_calls, broken = parse(prompt.split(THINK_END, 1)[1].removesuffix(EOS))
    assert (content, broken) == (before, "")
    assert [(name, json.loads(text)) for name, text in read_calls] == calls
