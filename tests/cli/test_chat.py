"""`lostwax chat`: prompts of chats, and messages of answers, by standard input and output."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from call_texts import DSML_PIECES, V31_PIECES, block, invoke, parameter, v31
from command_line import lostwax, one_sentence

from lostwax.cli import chat_input
from lostwax.server.formats import encoders
from lostwax.server.formats.encoders import encode_chat
from lostwax.server.formats.encoding_v32 import EOS, THINK_END
from lostwax.server.formats.pieces import joined
from lostwax.server.gateway.tokenizer_file import load_codec

USERS: list[dict[str, Any]] = [{"role": "user", "content": "hi ü\n\x1b"}]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"properties": {}}}}
TINY = Path(__file__).parents[2] / "models" / "tiny" / "weights"
Capture = pytest.CaptureFixture[str]


def run(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, given: object, *words: object
) -> tuple[int, str, str]:
    """A command with this on its standard input: text or bytes, or data as JSON."""
    content = given if isinstance(given, bytes) else None
    if content is None:
        content = (given if isinstance(given, str) else json.dumps(given)).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    return lostwax(capsys, "chat", *words)


def encoded(capsys: Capture, monkeypatch: pytest.MonkeyPatch, given: Any, *words: object) -> Any:
    status, out, err = run(capsys, monkeypatch, given, "encode", "--json", *words)
    assert (status, err) == (0, "")
    return json.loads(out)


def parsed(capsys: Capture, monkeypatch: pytest.MonkeyPatch, text: str, *words: object) -> Any:
    status, out, err = run(capsys, monkeypatch, text, "parse", *words)
    assert (status, err) == (0, "")
    return json.loads(out)


@pytest.mark.parametrize("format", ["deepseekv32", "deepseekv31"])
@pytest.mark.parametrize("thinking", [False, True])
def test_a_request_and_a_list_have_the_prompt_of_the_encoder(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, format: str, thinking: bool
) -> None:
    expected = joined(encode_chat(format, USERS, [TOOL], thinking=thinking))
    words, request = ("--format", format), {"messages": USERS, "tools": [TOOL], "model": "x"}
    for name in ("thinking", "enable_thinking"):
        said = {**request, "chat_template_kwargs": {name: thinking}}
        assert encoded(capsys, monkeypatch, said, *words) == {"prompt": expected}
    flag = ["--thinking"] if thinking else []
    assert encoded(capsys, monkeypatch, request, *words, *flag) == {"prompt": expected}
    plain = joined(encode_chat(format, USERS, thinking=thinking))
    assert encoded(capsys, monkeypatch, USERS, *words, *flag) == {"prompt": plain}


def test_without_json_the_prompt_is_printed_without_what_steers_a_terminal(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, out, err = run(capsys, monkeypatch, USERS, "encode")
    expected = joined(encode_chat("deepseekv32", USERS)).replace("\x1b", "")
    assert (status, out, err) == (0, f"{expected}\n", "")


def test_marks_in_messages_are_letters_in_the_ids(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = [{"role": "user", "content": EOS}]
    codec = load_codec(TINY)
    found = encoded(capsys, monkeypatch, turns, "--tokenizer", TINY)
    assert found["ids"] == codec.encode_pieces(encode_chat("deepseekv32", turns))
    assert codec.marks[EOS] not in found["ids"]
    trusted = {"messages": turns, "chat_template_kwargs": {"trust_content": True}}
    assert codec.marks[EOS] in encoded(capsys, monkeypatch, trusted, "--tokenizer", TINY)["ids"]


def test_a_tokenizer_without_a_prompts_marks_is_refused(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Letters in their place would be another prompt, and nobody would see it."""
    monkeypatch.setattr(encoders, "MARKS", ("## Tools",))
    words = ("encode", "--json", "--tokenizer", TINY)
    given = {"messages": USERS, "tools": [TOOL]}
    status, out, err = run(capsys, monkeypatch, given, *words)
    assert (status, out) == (1, "")
    assert "has no token ## Tools, which this prompt needs" in one_sentence(err)
    quoted = [{"role": "user", "content": "## Tools"}]
    assert run(capsys, monkeypatch, quoted, *words)[0] == 0


def test_reasoning_has_two_names(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("reasoning", "reasoning_content"):
        call = {"function": {"name": "f", "arguments": "{}"}}
        turns = [*USERS, {"role": "assistant", name: "so", "tool_calls": [call]}]
        prompt = encoded(capsys, monkeypatch, turns, "--thinking")["prompt"]
        assert f"<think>so{THINK_END}" in prompt


MISTAKES: dict[str, tuple[Any, str]] = {
    "no JSON": ("{", "standard input is no JSON"),
    "deep": ("[" * 100_000, "standard input is no JSON"),
    "no UTF-8": (b"\xff", "standard input is no UTF-8"),
    "no messages": ({}, "'messages' is required"),
    "a text": ('"x"', "'messages': Expected `array`, got `str`"),
    "a role that is none": ([{"role": "judge"}], "use system, developer, user, assistant or tool"),
    "no role": ([{}], "'messages[0].role' is required"),
    "a field that is none": (
        [{"role": "user", "colour": 1}],
        "unknown parameter 'messages[0].colour'",
    ),
    "an image": (
        [{"role": "user", "content": [{"type": "image_url"}]}],
        "only parts of type 'text' are read",
    ),
    "calls that are none": (
        [{"role": "assistant", "tool_calls": [1]}],
        "'messages[0].tool_calls[0]': Expected `object`",
    ),
    "a call without a name": (
        [{"role": "assistant", "tool_calls": [{"function": {}}]}],
        "name' is required",
    ),
    "tools that are none": ({"messages": USERS, "tools": 5}, "'tools': Expected `array"),
    "a tool without a name": ({"messages": USERS, "tools": [{}]}, "is required"),
    "a tool in a message": ([{"role": "system", "tools": [{}]}], "is required"),
    "a tool of a user's": (
        [{**USERS[0], "tools": [TOOL]}],
        "a user message has no tools; remove it",
    ),
    "other settings": (
        {"messages": USERS, "chat_template_kwargs": {"x": 1}},
        "unknown parameter 'chat_template_kwargs.x'",
    ),
    "both settings": (
        {"messages": USERS, "chat_template_kwargs": {"thinking": True, "enable_thinking": False}},
        "thinking says the opposite",
    ),
    "more results than calls": ([*USERS, {"role": "tool", "content": ""}], "tool result 1 of 0"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_sentence(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    given, said = MISTAKES[name]
    status, out, err = run(capsys, monkeypatch, given, "encode")
    assert (status, out) == (1, "")
    assert said in one_sentence(err)


def test_what_is_too_long_is_refused(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_input, "MAX_BYTES", 1 << 20)
    for command in ("encode", "parse"):
        status, _, err = run(capsys, monkeypatch, b" " * ((1 << 20) + 1), command)
        assert status == 1
        assert "standard input has more than 1 MiB; give less" in one_sentence(err)
    assert run(capsys, monkeypatch, " " * (1 << 20), "parse")[0] == 0


def test_saying_both_is_refused(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"messages": USERS, "chat_template_kwargs": {"thinking": False}}
    status, _, err = run(capsys, monkeypatch, given, "encode", "--thinking")
    assert status == 1
    assert "chat_template_kwargs say the opposite of --thinking" in one_sentence(err)


def test_a_folder_without_a_tokenizer_is_named(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    status, _, err = run(capsys, monkeypatch, USERS, "encode", "--json", "--tokenizer", tmp_path)
    assert status == 1
    assert f"{tmp_path} has no tokenizer.json" in one_sentence(err)


CALLING = block(invoke("f", parameter("a", "ü"), parameter("b", "[1]", False)))
CALL = {
    "id": "call_0",
    "type": "function",
    "function": {"name": "f", "arguments": '{"a": "ü", "b": [1]}'},
}


@pytest.mark.parametrize("stream", [[], ["--stream"]])
@pytest.mark.parametrize("end", ["", "\n", EOS, f"{EOS}\n"])
def test_an_answer_is_printed_as_an_assistants_message(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, stream: list[str], end: str
) -> None:
    text = f"so{THINK_END}Hi{CALLING}{end}"
    assert parsed(capsys, monkeypatch, text, "--thinking", *stream) == {
        "role": "assistant",
        "content": "Hi",
        "reasoning_content": "so",
        "tool_calls": [CALL],
    }


@pytest.mark.parametrize(
    ("text", "words", "content", "reasoning"),
    [
        ("", [], "", None),
        (EOS, [], "", None),
        ("Hi", [], "Hi", None),
        ("Hi\n", [], "Hi\n", None),
        ("so", ["--thinking"], None, "so"),
        (f"so{THINK_END}", ["--thinking"], "", "so"),
        (f"<think>so{THINK_END}Hi", [], "Hi", "so"),
    ],
)
def test_content_is_null_where_it_has_not_begun(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, text: str, words: list[str],
    content: str | None, reasoning: str | None,
) -> None:  # fmt: skip
    message = parsed(capsys, monkeypatch, text, *words)
    assert (message["content"], message["reasoning_content"]) == (content, reasoning)
    assert message["tool_calls"] == []


def test_content_is_null_beside_calls_alone(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = parsed(capsys, monkeypatch, CALLING)
    assert (message["content"], message["tool_calls"]) == (None, [CALL])


@pytest.mark.parametrize("format", ["deepseekv32", "deepseekv31"])
def test_small_pieces_print_the_same(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, format: str
) -> None:
    texts = DSML_PIECES if format == "deepseekv32" else V31_PIECES
    for pieces in texts.values():
        words = ("parse", "--format", format)
        whole = run(capsys, monkeypatch, "".join(pieces), *words)
        assert run(capsys, monkeypatch, "".join(pieces), *words, "--stream") == whole
        assert whole[0] == 0


def test_the_format_says_what_a_call_is(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    text = v31("f", "{}")
    assert parsed(capsys, monkeypatch, text)["content"] == text
    message = parsed(capsys, monkeypatch, text, "--format", "deepseekv31")
    assert message["tool_calls"][0]["function"] == {"name": "f", "arguments": "{}"}


def test_a_malformed_call_is_content_and_said(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = block(invoke("f", parameter("a", "1"), parameter("a", "2")))
    status, out, err = run(capsys, monkeypatch, text, "parse")
    assert (status, json.loads(out)["content"], json.loads(out)["tool_calls"]) == (0, text, [])
    assert "text is content: parameter 'a' of 'f' stands twice" in one_sentence(err)


def test_tools_say_which_calls_there_are_and_their_types(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "tools.json"
    schema = {"properties": {"a": {"type": "integer"}}}
    tools = [{"type": "function", "function": {"name": "f", "parameters": schema}}]
    text = block(invoke("f", parameter("a", "5")))
    for content in (tools, {"tools": tools}):
        path.write_text(json.dumps(content))
        message = parsed(capsys, monkeypatch, text, "--tools", path)
        assert message["tool_calls"][0]["function"]["arguments"] == '{"a": "5"}'
        message = parsed(capsys, monkeypatch, text, "--tools", path, "--coerce")
        assert message["tool_calls"][0]["function"]["arguments"] == '{"a": 5}'
    _, _, err = run(capsys, monkeypatch, block(invoke("g")), "parse", "--tools", path)
    assert "the tool 'g' was not offered" in one_sentence(err)


def test_calls_outside_a_block_are_text_where_that_is_asked(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = invoke("f")
    assert len(parsed(capsys, monkeypatch, text)["tool_calls"]) == 1
    _, out, err = run(capsys, monkeypatch, text, "parse", "--blocks-only")
    assert json.loads(out)["content"] == text
    assert "no call begins with this mark" in one_sentence(err)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is no JSON"),
        ("5", "the tools of {}: Expected `array`"),
        ("{}", "the tools of {}: Expected `array`, got `null`"),
        ("[{}]", "a tool has no name"),
        ('[{"name": 5}]', "a tool has no name"),
        ('[{"function": 5}]', "a tool has no name"),
    ],
)
def test_a_file_of_no_tools_is_named(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str, said: str
) -> None:
    path = tmp_path / "tools.json"
    path.write_text(content)
    status, _, err = run(capsys, monkeypatch, "", "parse", "--tools", path)
    assert status == 1
    assert said.format(path) in one_sentence(err)


def test_text_that_is_no_utf_8_is_refused(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    status, _, err = run(capsys, monkeypatch, b"\xff", "parse")
    assert status == 1
    assert "standard input is no UTF-8" in one_sentence(err)
