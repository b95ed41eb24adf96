"""The strict parser of whole completions: the encoder's inverse, and an error for anything else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lostwax.server.formats.encoding_v32 import (
    ASSISTANT,
    BOS,
    DSML,
    EOS,
    THINK,
    THINK_END,
    USER,
    Mode,
    encode_messages,
    is_name,
)
from lostwax.server.formats.parse_v32 import (
    InvalidArgument,
    MalformedCalls,
    ParsedMessage,
    ParseError,
    StrayMark,
    ToolCall,
    UnclosedReasoning,
    parse_completion,
)

MARKS = (BOS, EOS, USER, ASSISTANT, THINK, THINK_END, DSML)
PROMPT: list[dict[str, Any]] = [{"role": "user", "content": "hi"}]

texts = st.text(st.characters(codec="utf-8"), max_size=40)
plain = texts.filter(lambda t: not any(mark in t for mark in MARKS))
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | plain,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(plain, inner, max_size=3),
    max_leaves=8,
)
TAGS = (
    f"</{DSML}parameter>",
    f'\n<{DSML}parameter name="b" string="true">',
    f"\n</{DSML}invoke>",
    f"\n</{DSML}function_calls>",
    f"<{DSML}",
    DSML,
)
tagged = st.lists(st.sampled_from(TAGS) | plain, max_size=6).map("".join)
holding_tags = tagged | st.lists(tagged, max_size=2) | st.dictionaries(tagged, tagged, max_size=2)
names = st.text("abcdefghijklmnopqrstuvwxyz_09-", min_size=1, max_size=12)
keys = plain.filter(is_name)
calls = st.builds(ToolCall, names, st.dictionaries(keys, values | holding_tags, max_size=4))
messages = st.builds(ParsedMessage, plain, plain, st.lists(calls, max_size=3))


def written(message: ParsedMessage, mode: Mode) -> str:
    """What the encoder makes of a message, behind the prompt."""
    turn: dict[str, Any] = {
        "role": "assistant",
        "content": message.content,
        "reasoning_content": message.reasoning,
        "tool_calls": [
            {"type": "function", "function": {"name": c.name, "arguments": c.arguments}}
            for c in message.tool_calls
        ],
    }
    prompt = encode_messages(PROMPT, mode)
    return encode_messages([*PROMPT, turn], mode)[len(prompt) :]


@settings(suppress_health_check=[HealthCheck.too_slow])  # of drawing, on a machine that is busy
@given(messages)
def test_what_the_encoder_writes_reads_back_in_chat_mode(message: ParsedMessage) -> None:
    expected = ParsedMessage("", message.content, message.tool_calls)
    text = written(message, "chat")
    assert parse_completion(text, "chat") == expected
    assert parse_completion(text.removesuffix(EOS), "chat") == expected


@given(messages.filter(lambda m: bool(m.reasoning or m.tool_calls)))
def test_what_the_encoder_writes_reads_back_in_thinking_mode(message: ParsedMessage) -> None:
    assert parse_completion(written(message, "thinking"), "thinking") == message


BLOCK = written(ParsedMessage("", "", [ToolCall("f", {"a": 1, "b": "x"})]), "chat")
FRAGMENTS = (
    *MARKS,
    "\n",
    "\n\n",
    f"<{DSML}function_calls>",
    f"</{DSML}function_calls>",
    f'<{DSML}invoke name="f">',
    f"</{DSML}invoke>",
    f'<{DSML}parameter name="a" string="false">',
    f'<{DSML}parameter name="a" string="true">',
    f"</{DSML}parameter>",
    "1",
    "[" * 5000,
    "1e999",
    '"\\ud800"',
)


@given(st.lists(st.sampled_from(FRAGMENTS) | texts, max_size=24).map("".join), st.booleans())
def test_garbage_is_a_parse_error_and_nothing_else(text: str, thinks: bool) -> None:
    mode: Mode = "thinking" if thinks else "chat"
    try:
        message = parse_completion(text, mode)
    except ParseError:
        return
    # What it takes, it has read whole: nothing of the format is left inside.
    assert not any(mark in message.content + message.reasoning for mark in MARKS)


def test_a_block_that_breaks_off_anywhere_is_never_a_call() -> None:
    whole = BLOCK.removesuffix(EOS)
    opened = whole.index(DSML) + len(DSML)
    for at in range(len(whole)):
        if at < opened:
            assert parse_completion(whole[:at], "chat") == ParsedMessage("", whole[:at])
        else:
            with pytest.raises(ParseError):
                parse_completion(whole[:at], "chat")


def parameter(inner: str) -> str:
    return BLOCK.replace(f'<{DSML}parameter name="a" string="false">1', inner)


FAULTS = {
    "no end of reasoning": ("it never ends", "thinking", UnclosedReasoning, "no </think>"),
    "a think mark in chat": ("a</think>b", "chat", StrayMark, "in the content at 1"),
    "an end mark inside": (f"a{EOS}b", "chat", StrayMark, "in the content at 1"),
    "one line break before": (BLOCK[1:], "chat", StrayMark, "in the content"),
    "text behind": (BLOCK.removesuffix(EOS) + " so", "chat", MalformedCalls, "text follows"),
    "no call inside": (
        f"\n\n<{DSML}function_calls>\n\n</{DSML}function_calls>",
        "chat",
        MalformedCalls,
        "no call begins",
    ),
    "a parameter without its flag": (
        parameter(f'<{DSML}parameter name="a">1'),
        "chat",
        MalformedCalls,
        "no whole parameter of 'f'",
    ),
    "a parameter twice": (
        BLOCK.replace('name="b"', 'name="a"'),
        "chat",
        InvalidArgument,
        "parameter 'a' of 'f' stands twice",
    ),
    "a name of two lines": (
        BLOCK.replace('name="f"', 'name="f\nname=g"'),
        "chat",
        MalformedCalls,
        "no call begins here",
    ),
    "a tag in a string": (
        parameter(f'<{DSML}parameter name="a" string="true"><{DSML}parameter name="c">'),
        "chat",
        StrayMark,
        "a tag of the calls stands in parameter 'a' of 'f'",
    ),
    "a tag in JSON": (
        parameter(f'<{DSML}parameter name="a" string="false">"<{DSML}invoke>"'),
        "chat",
        StrayMark,
        "a tag of the calls stands in parameter 'a' of 'f'",
    ),
    "no JSON": (
        parameter(f'<{DSML}parameter name="a" string="false">one'),
        "chat",
        InvalidArgument,
        "parameter 'a' of 'f' is no JSON",
    ),
    "not a number of JSON": (
        parameter(f'<{DSML}parameter name="a" string="false">NaN'),
        "chat",
        InvalidArgument,
        "NaN is no number",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_named(fault: str) -> None:
    text, mode, error, message = FAULTS[fault]
    with pytest.raises(error, match=message):
        parse_completion(text, mode)  # pyright: ignore[reportArgumentType]


def test_reasoning_may_talk_of_nothing_but_text() -> None:
    with pytest.raises(StrayMark, match="in the reasoning"):
        parse_completion(f"I call <{DSML}function_calls></think>done", "thinking")
