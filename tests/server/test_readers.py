"""Reasoning first, calls behind it, by the name of the format."""

from __future__ import annotations

import pytest
from call_texts import block, invoke, v31

from lostwax.server.formats.encoders import Format
from lostwax.server.formats.encoding_v32 import THINK, THINK_END
from lostwax.server.formats.message import CallDelta, MessageDelta, in_order, whole_message
from lostwax.server.formats.readers import reader_of

CALLING = block(invoke("f"))


def test_calls_inside_reasoning_are_reasoning() -> None:
    reader = reader_of("deepseekv32", thinks=True)
    message = whole_message(reader, f"so{CALLING}{THINK_END}Hi{CALLING}")
    assert message == MessageDelta(f"so{CALLING}", "Hi", [CallDelta(0, "f", "{}", at=2)])
    assert reader.reasoning_end == len(f"so{CALLING}{THINK_END}")
    assert not reader.in_reasoning


def test_reasoning_that_never_ends_is_all_there_is() -> None:
    reader = reader_of("deepseekv32", thinks=True)
    assert whole_message(reader, f"so{CALLING}</thi") == MessageDelta(f"so{CALLING}</thi")
    assert (reader.in_reasoning, reader.reasoning_end, reader.num_calls) == (True, None, 0)


def test_the_format_none_reads_no_calls() -> None:
    reader = reader_of("none", thinks=True)
    assert whole_message(reader, f"so{THINK_END}{CALLING}") == MessageDelta("so", CALLING)
    assert (reader.num_calls, reader.broken) == (0, "")


def test_each_format_reads_its_own_calls_only() -> None:
    formats: list[tuple[Format, str]] = [
        ("deepseekv32", v31("f", "{}")),
        ("deepseekv31", CALLING),
    ]
    for format, text in formats:
        reader = reader_of(format, thinks=False)
        assert whole_message(reader, text) == MessageDelta(content=text)
        assert reader.broken == ""


def test_reasoning_may_be_left_in_the_content() -> None:
    text = f"{THINK}so{THINK_END}Hi"
    reader = reader_of("deepseekv32", thinks=True, splits_reasoning=False)
    assert not reader.in_reasoning
    message = whole_message(reader, text + CALLING)
    assert message == MessageDelta("", text, [CallDelta(0, "f", "{}", at=len(text))])
    assert reader.reasoning_end is None


def test_a_whole_message_has_no_call_that_never_ended() -> None:
    text = CALLING.partition("</")[0]
    reader = reader_of("deepseekv32", thinks=False)
    assert reader.push(f"{CALLING}{text}").calls[-1] == CallDelta(1, "f")
    message = whole_message(reader_of("deepseekv32", thinks=False), CALLING + text)
    assert message.calls == [CallDelta(0, "f", "{}")]


def test_the_deltas_of_a_call_become_one() -> None:
    message = MessageDelta("a", "b", [CallDelta(0, "f", "{")])
    parts = [CallDelta(0, None, "}"), CallDelta(1, "g", "{", at=1)]
    message.extend(MessageDelta("c", "d", parts))
    message.extend(MessageDelta(calls=[CallDelta(1, None, "}")]))
    calls = [CallDelta(0, "f", "{}"), CallDelta(1, "g", "{}", at=2)]
    assert message == MessageDelta("ac", "bd", calls)


def test_a_delta_tells_its_parts_in_their_order() -> None:
    calls = [CallDelta(0, None, "}"), CallDelta(1, "f", at=2), CallDelta(2, "g", at=2)]
    assert list(in_order("abc", calls)) == [calls[0], "ab", *calls[1:], "c"]
    assert list(in_order("abc", [])) == ["abc"]
    assert list(in_order("", [])) == []


def test_extending_changes_no_other_delta() -> None:
    other = MessageDelta(calls=[CallDelta(0, "f", "{")])
    message = MessageDelta()
    message.extend(other)
    message.extend(MessageDelta(calls=[CallDelta(0, None, "}")]))
    assert other.calls == [CallDelta(0, "f", "{")]


@pytest.mark.parametrize(
    ("delta", "holds"),
    [
        (MessageDelta(), False),
        (MessageDelta("a"), True),
        (MessageDelta("", "a"), True),
        (MessageDelta(calls=[CallDelta(0)]), True),
    ],
)
def test_a_delta_is_true_where_it_holds_something(delta: MessageDelta, holds: bool) -> None:
    assert bool(delta) == holds
