"""The prompt text of DeepSeek-V3.2, against examples of the model's own encoder."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from lostwax.server.formats.encoding_v32 import EncodingError, encode_messages

CONVERSATIONS = sorted((Path(__file__).parent / "conversations_v32").glob("*.json"))
AUTHORS_EXAMPLE = Path(__file__).parents[3] / "shared" / "data" / "encoding_v32"
"""The model authors' tools, messages and expected prompt; not part of this repository."""

ADD: dict[str, Any] = {
    "function": {"name": "add", "arguments": '{"a": 2, "b": 3}'},
    "type": "function",
}


def test_a_terse_system_message_in_thinking_mode() -> None:
    messages = [
        {"role": "system", "content": "Be terse."},
        {"role": "user", "content": "Why is the sky blue?"},
    ]
    assert encode_messages(messages, "thinking") == (
        "<｜begin▁of▁sentence｜>Be terse.<｜User｜>Why is the sky blue?<｜Assistant｜><think>"  # noqa: RUF001
    )


def test_one_tool_round_in_thinking_mode() -> None:
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "2 plus 3?"},
        {"role": "assistant", "reasoning_content": "use add", "tool_calls": [ADD]},
        {"role": "tool", "content": "5"},
    ]
    assert encode_messages(messages, "thinking").split("<｜User｜>")[1] == (  # noqa: RUF001
        "2 plus 3?<｜Assistant｜><think>use add</think>\n\n<｜DSML｜function_calls>\n"  # noqa: RUF001
        '<｜DSML｜invoke name="add">\n'  # noqa: RUF001
        '<｜DSML｜parameter name="a" string="false">2</｜DSML｜parameter>\n'  # noqa: RUF001
        '<｜DSML｜parameter name="b" string="false">3</｜DSML｜parameter>\n'  # noqa: RUF001
        "</｜DSML｜invoke>\n</｜DSML｜function_calls><｜end▁of▁sentence｜>\n\n"  # noqa: RUF001
        "<function_results>\n<result>5</result>\n</function_results>\n\n<think>"
    )


def test_there_are_ten_conversations() -> None:
    assert len(CONVERSATIONS) == 10


@pytest.mark.parametrize("path", CONVERSATIONS, ids=lambda path: path.stem)
def test_a_conversation_has_the_prompt_beside_it(path: Path) -> None:
    """Compared byte for byte; written by this encoder, and equal to the model's own."""
    conversation = json.loads(path.read_bytes())
    prompt = path.with_suffix(".txt").read_bytes().decode()
    assert encode_messages(conversation["messages"], conversation["mode"]) == prompt


@pytest.mark.skipif(
    not AUTHORS_EXAMPLE.is_dir(),
    reason=f"the authors' example (test_input.json, test_output.txt) is not at {AUTHORS_EXAMPLE}",
)
def test_the_authors_example_is_rendered_byte_for_byte() -> None:
    given = json.loads((AUTHORS_EXAMPLE / "test_input.json").read_bytes())
    system, *turns = given["messages"]
    prompt = (AUTHORS_EXAMPLE / "test_output.txt").read_bytes().decode()
    messages = [system | {"tools": given["tools"]}, *turns]
    assert encode_messages(messages, "thinking") == prompt.removesuffix("\n")  # the file's own end


def test_reasoning_of_earlier_turns_is_dropped() -> None:
    messages = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "Hello.", "reasoning_content": "greet"},
        {"role": "user", "content": "again"},
    ]
    assert encode_messages(messages, "thinking") == (
        "<｜begin▁of▁sentence｜><｜User｜>hi<｜Assistant｜></think>Hello.<｜end▁of▁sentence｜>"  # noqa: RUF001
        "<｜User｜>again<｜Assistant｜><think>"  # noqa: RUF001
    )


def test_tools_text_ends_with_the_bare_function_objects() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}, {"name": "g"}]
    prompt = encode_messages([{"role": "system", "content": "", "tools": tools}], "chat")
    text = prompt.removeprefix("<｜begin▁of▁sentence｜>\n\n")  # noqa: RUF001
    assert text.endswith('<functions>\n{"name": "f"}\n{"name": "g"}\n</functions>\n')
    assert "reply to the user:\n<｜DSML｜function_calls>\n" in text  # noqa: RUF001
    assert len(text) == 1089 + len('{"name": "f"}\n{"name": "g"}\n</functions>\n')


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "judge", "content": ""}],
        [{"role": "developer", "content": ""}],
        [{"role": "user", "content": "x"}, {"role": "tool", "content": "5"}],
        [{"role": "user", "content": "x", "tool_calls": [ADD]}, {"role": "tool", "content": "5"}],
        [{"role": "user", "content": [{"type": "image_url"}]}],
    ],
)
def test_what_cannot_be_rendered_is_refused(messages: list[dict[str, Any]]) -> None:
    with pytest.raises(EncodingError):
        encode_messages(messages, "chat")


def _called(arguments: object) -> str:
    call = {"function": {"name": "f", "arguments": arguments}}
    return encode_messages([{"role": "assistant", "tool_calls": [call, call]}], "chat")


def test_arguments_of_any_depth_are_rendered() -> None:
    """Reading and writing JSON give up at different depths: there is one between the two."""
    limit = sys.getrecursionlimit()
    found = {'string="true">{"a"': 0, 'name="a" string="false">': 0}
    for depth in range(limit // 2, limit):
        text = _called('{"a": ' + "[" * depth + "]" * depth + "}")
        for form in found:
            found[form] += form in text
    assert all(found.values()), "as text, too, and as what it is"
    assert sum(found.values()) == limit - limit // 2


@pytest.mark.parametrize("arguments", ["[1]", "{", '{"a": "2",]', "3", "\\", '{"a": "\\ud800"}'])
def test_arguments_that_are_no_object_stand_under_one_name(arguments: str) -> None:
    text = _called(arguments)
    name = '<｜DSML｜parameter name="arguments" string="true">'  # noqa: RUF001
    assert text.count(f"{name}{arguments}</｜DSML｜parameter>") == 2  # noqa: RUF001


@pytest.mark.parametrize("arguments", ["", " ", "null", "{}", None, {}])
def test_a_call_may_have_no_arguments(arguments: object) -> None:
    assert _called(arguments).count('<｜DSML｜invoke name="f">\n\n</｜DSML｜invoke>') == 2  # noqa: RUF001


@pytest.mark.parametrize("call", [{"name": 'a"b'}, {"name": "f", "arguments": [1]}])
def test_a_refused_call_is_told_by_its_message_and_number(call: dict[str, Any]) -> None:
    turn = {"role": "assistant", "tool_calls": [{"name": "f"}, {"function": call}]}
    with pytest.raises(EncodingError, match=r"^messages\[1\] has, as its tool call 2, ") as found:
        encode_messages([{"role": "user", "content": "?"}, turn], "chat")
    assert found.value.index == 1
