"""Renders chat messages as the prompt of DeepSeek-V3.2. Knows no tokenizer and no request.

The rules are those of the model's own encoder (no chat template exists). Constants are byte-exact:
the models are trained on this text.

The model's own encoder takes every text as it is, so that a mark or a closing tag in a message acts
like one of the encoder's. Here that needs `trust_content`; else what messages bring stays text:

- Marks in it are told apart by the pieces (`pieces.py`): no tokenizer may make tokens of them.
- Tags are plain text to most tokenizers. Where text stands between tags, the `<` of those tags is
  written `&lt;` in it, or `\\u003c` in JSON, where it means the same; a string argument that holds
  one is written as JSON, from which it is read back exactly.
- A name stands between quotes and is never written otherwise: a tool's that breaks out is an
  error. Where an argument's does, all arguments are one JSON object in the parameters' place.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from lostwax.server.formats.call_arguments import object_of, readable_object
from lostwax.server.formats.pieces import Piece, joined

Message = Mapping[str, Any]
Mode = Literal["chat", "thinking"]

BOS = "<｜begin▁of▁sentence｜>"  # noqa: RUF001  (the model's own spelling, U+FF5C)
EOS = "<｜end▁of▁sentence｜>"  # noqa: RUF001
USER = "<｜User｜>"  # noqa: RUF001
ASSISTANT = "<｜Assistant｜>"  # noqa: RUF001
THINK, THINK_END = "<think>", "</think>"
DSML = "｜DSML｜"  # noqa: RUF001

_TOOLS_HEAD = f"""## Tools

You have access to a set of tools you can use to answer the user's question.
You can invoke functions by writing a "<{DSML}function_calls>" block like the following as part of \
your reply to the user:
<{DSML}function_calls>
<{DSML}invoke name="$FUNCTION_NAME">
<{DSML}parameter name="$PARAMETER_NAME" string="true|false">$PARAMETER_VALUE</{DSML}parameter>
...
</{DSML}invoke>
<{DSML}invoke name="$FUNCTION_NAME2">
...
</{DSML}invoke>
</{DSML}function_calls>

String and scalar parameters should be specified as is without any escaping or quotes, while lists \
and objects should use JSON format. The "string" attribute should be set to "true" for string type \
parameters and "false" for other types (numbers, booleans, arrays, objects).

If the thinking_mode is enabled, then after function results you should strongly consider \
outputting a thinking block. Here is an example:

<{DSML}function_calls>
...
</{DSML}function_calls>

<function_results>
...
</function_results>

<think>...thinking about results</think>

Here are the functions available in JSONSchema format:
<functions>
"""
_SCHEMA_HEAD = "## Response Format:\n\nYou MUST strictly adhere to the following schema to reply:\n"
_MARKS = (BOS, EOS, USER, ASSISTANT, THINK, THINK_END)

# The `<` of the tags that a text stands between.
_DSML_TAG = re.compile(f"<(?=/?{DSML})")
_RESULT_TAG = re.compile("<(?=/?(?:function_results|result)>)")
_FUNCTIONS_TAG = re.compile("<(?=/?functions>)")
_NO_NAME = re.compile(f'["\x00-\x1f\x7f\x85\u2028\u2029]|{DSML}')
MAX_SHOWN_CHARS = 80
"""Of a name in a message to its user."""


class EncodingError(ValueError):
    """The messages cannot be rendered: `reason` says why, `index` of which message, None where it
    is not of one."""

    def __init__(self, reason: str, index: int | None = None) -> None:
        super().__init__(reason if index is None else f"messages[{index}] {reason}")
        self.reason = reason
        self.index = index


def encode_pieces(
    messages: Sequence[Message], mode: Mode, *, trust_content: bool = False
) -> list[Piece]:
    """The whole prompt, from the begin-of-sentence mark to where the model goes on.

    With `trust_content` all of it is structure, as the model's own encoder has it. Without, a
    prompt that brings no tag of its own has the same text. Raises EncodingError.
    """
    last_user = _last_user(messages)
    prompt = _Prompt(trust_content)
    prompt.put(BOS)
    for index, message in enumerate(messages):
        role = message.get("role")
        thinks = mode == "thinking" and index >= last_user
        if role == "system":
            _system(prompt, message)
        elif role in ("user", "developer"):
            prompt.put(USER)
            if role == "user":
                prompt.bring(text_of(message))
            else:
                _developer(prompt, message)
            prompt.put(ASSISTANT)
            prompt.put(THINK if thinks and index == last_user else THINK_END)
        elif role == "assistant":
            _assistant(prompt, message, index, thinks and index > last_user)
        elif role == "tool":
            _tool(prompt, messages, index, thinks)
        else:
            raise EncodingError(
                f"has role {role!r}; use system, developer, user, assistant, tool", index
            )
    return prompt.pieces


def encode_messages(messages: Sequence[Message], mode: Mode, *, trust_content: bool = False) -> str:
    """The whole prompt as one text, for tokenizers that find the marks in it.

    Raises EncodingError, too, where a message holds a mark: in one text it would be structure.
    """
    pieces = encode_pieces(messages, mode, trust_content=trust_content)
    for piece in pieces:
        for mark in _MARKS:
            if not piece.is_structure and mark in piece.text:
                raise EncodingError(
                    f"a message holds {mark!r}, which a prompt of one text would make structure;"
                    " send the messages to /v1/chat/completions, which keeps it text"
                )
    return joined(pieces)


def is_name(text: str) -> bool:
    """Whether a tool or a parameter may be called so: no quote, line break, control or DSML."""
    return _NO_NAME.search(text) is None


def holds_tag(value: str) -> bool:
    """Whether an argument's text holds a tag of tool calls, which none is written with."""
    return _DSML_TAG.search(value) is not None


class _Prompt:
    """The pieces so far."""

    def __init__(self, trust_content: bool) -> None:
        self.pieces: list[Piece] = []
        self._trusts = trust_content

    def put(self, text: str) -> None:
        """Structure."""
        self.pieces.append(Piece(text, True))

    def bring(self, text: str, tag: re.Pattern[str] | None = None, written: str = "&lt;") -> None:
        """Text of a message that stands between tags of this kind."""
        if tag is not None and not self._trusts:
            text = tag.sub(lambda _: written, text)
        self.pieces.append(Piece(text, self._trusts))

    def bring_json(self, value: Any, tag: re.Pattern[str] | None = None) -> None:
        """A value of a message as JSON; what is written for a tag's `<` means the same there."""
        self.bring(json.dumps(value, ensure_ascii=False), tag, "\\u003c")

    def takes_name(self, name: str) -> bool:
        """Whether a name may stand between quotes: it does not break out of them."""
        return self._trusts or is_name(name)

    def is_plain(self, value: Any) -> bool:
        """Whether a value is written as the string that it is."""
        return isinstance(value, str) and (self._trusts or not holds_tag(value))


def _last_user(messages: Sequence[Message]) -> int:
    """The last message of a user or developer; -1 where there is none, as the model's encoder."""
    for index in range(len(messages) - 1, -1, -1):
        if messages[index].get("role") in ("user", "developer"):
            return index
    return -1


def _system(prompt: _Prompt, message: Message) -> None:
    prompt.bring(text_of(message))
    _offer(prompt, message)


def _developer(prompt: _Prompt, message: Message) -> None:
    content = text_of(message)
    if not content:
        raise EncodingError("a developer message has no content; write one or leave it out")
    _offer(prompt, message)
    prompt.put("\n\n# The user's message is: ")
    prompt.bring(content)


def _offer(prompt: _Prompt, message: Message) -> None:
    """What tells the model of its tools (one JSON line each) and of the form of its answer."""
    if message.get("tools"):
        prompt.put("\n\n" + _TOOLS_HEAD)
        for number, tool in enumerate(message["tools"]):
            prompt.put("\n" if number else "")
            prompt.bring_json(tool.get("function", tool), _FUNCTIONS_TAG)
        prompt.put("\n</functions>\n")
    if message.get("response_format"):
        prompt.put("\n\n" + _SCHEMA_HEAD)
        prompt.bring_json(message["response_format"])


def _assistant(prompt: _Prompt, message: Message, index: int, thinks: bool) -> None:
    reasoning, calls = message.get("reasoning_content") or "", message.get("tool_calls") or ()
    if thinks:
        if not reasoning and not calls:
            raise EncodingError(
                "stands behind the last user's message while the model thinks, and has neither"
                " reasoning nor calls of tools; bring back the reasoning that led to it, or let the"
                " model not think",
                index,
            )
        prompt.bring(reasoning, _DSML_TAG)
        prompt.put(THINK_END)
    prompt.bring(text_of(message), _DSML_TAG)
    if calls:
        prompt.put(f"\n\n<{DSML}function_calls>\n")
        for number, call in enumerate(calls):
            _invoke(prompt, call.get("function", call), index, number)
        prompt.put(f"</{DSML}function_calls>")
    prompt.put(EOS)


def _invoke(prompt: _Prompt, function: Mapping[str, Any], index: int, number: int) -> None:
    name = str(function.get("name"))
    if not prompt.takes_name(name):
        shown = name[:MAX_SHOWN_CHARS]
        raise EncodingError(
            f"{place_of_call(number)} {shown!r}, which cannot name a tool: it holds a quote, a line"
            " break, a control character or the tool calls' mark; rename it",
            index,
        )
    given = function.get("arguments")
    arguments = readable_object(given) if isinstance(given, str) else object_of(given)
    if arguments is None:
        raise EncodingError(f"{place_of_call(number)} arguments that are no JSON object", index)
    prompt.put(f'<{DSML}invoke name="')
    prompt.bring(name)
    prompt.put('">\n')
    named = {str(key): value for key, value in arguments.items()}
    if all(map(prompt.takes_name, named)):
        for at, (key, value) in enumerate(named.items()):
            prompt.put("\n" if at else "")
            _parameter(prompt, key, value)
    else:
        prompt.bring_json(named, _DSML_TAG)
    prompt.put(f"\n</{DSML}invoke>\n")


def place_of_call(number: int) -> str:
    """How a sentence begins that is about a call of a message."""
    return f"has, as its tool call {number + 1},"


def _parameter(prompt: _Prompt, name: str, value: Any) -> None:
    plain = prompt.is_plain(value)
    prompt.put(f'<{DSML}parameter name="')
    prompt.bring(name)
    prompt.put(f'" string="{"true" if plain else "false"}">')
    if plain:
        prompt.bring(value)
    else:
        prompt.bring_json(value, _DSML_TAG)
    prompt.put(f"</{DSML}parameter>")


def _tool(prompt: _Prompt, messages: Sequence[Message], index: int, thinks: bool) -> None:
    """One result; results belong to calls by their order, never by id."""
    caller = index - 1
    while caller >= 0 and messages[caller].get("role") == "tool":
        caller -= 1
    called: Message = messages[caller] if caller >= 0 else {}
    calls = called.get("tool_calls") or () if called.get("role") == "assistant" else ()
    number = index - caller
    if number > len(calls):
        raise EncodingError(f"is tool result {number} of {len(calls)} tool calls before it", index)
    prompt.put("\n\n<function_results>\n<result>" if number == 1 else "\n<result>")
    prompt.bring(text_of(messages[index]), _RESULT_TAG)
    prompt.put("</result>")
    if number == len(calls):
        prompt.put("\n</function_results>\n\n")
        prompt.put(THINK if thinks else THINK_END)


def text_of(message: Message) -> str:
    """The content of a message as one text; EncodingError where it is not only text."""
    content = message.get("content")
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    parts: list[str] = []
    for part in content:
        if not isinstance(part, Mapping) or part.get("type") != "text":  # pyright: ignore
            raise EncodingError("only text content can be read; leave out images and audio")
        parts.append(str(part.get("text", "")))  # pyright: ignore
    return "".join(parts)
