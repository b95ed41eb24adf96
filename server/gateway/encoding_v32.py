"""Renders chat messages as the prompt text of DeepSeek-V3.2. Knows no tokenizer and no request.

The rules are those of the model's own encoder (no chat template exists). Constants are byte-exact:
the models are trained on this text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

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


class EncodingError(ValueError):
    """The messages cannot be rendered; the message says which one and why."""


def encode_messages(messages: Sequence[Message], mode: Mode) -> str:
    """The whole prompt, from the begin-of-sentence mark to where the model goes on."""
    last_user = _last_user(messages)
    parts = [BOS]
    for index, message in enumerate(messages):
        role = message.get("role")
        thinks = mode == "thinking" and index >= last_user
        if role == "system":
            parts.append(_system(message))
        elif role in ("user", "developer"):
            text = _text(message) if role == "user" else _developer(message)
            opened = THINK if thinks and index == last_user else THINK_END
            parts.append(f"{USER}{text}{ASSISTANT}{opened}")
        elif role == "assistant":
            parts.append(_assistant(message, index, thinks and index > last_user))
        elif role == "tool":
            parts.append(_tool(messages, index, thinks))
        else:
            raise EncodingError(
                f"messages[{index}] has role {role!r}; use system, developer, user, assistant, tool"
            )
    return "".join(parts)


def tools_text(tools: Sequence[Mapping[str, Any]]) -> str:
    """What tells the model of its tools: the format, then one JSON line a function."""
    lines = [_json(tool.get("function", tool)) for tool in tools]
    return _TOOLS_HEAD + "\n".join(lines) + "\n</functions>\n"


def _last_user(messages: Sequence[Message]) -> int:
    """The last message of a user or developer; -1 where there is none, as the model's encoder."""
    for index in range(len(messages) - 1, -1, -1):
        if messages[index].get("role") in ("user", "developer"):
            return index
    return -1


def _system(message: Message) -> str:
    text = _text(message)
    if message.get("tools"):
        text += "\n\n" + tools_text(message["tools"])
    if message.get("response_format"):
        text += "\n\n" + _SCHEMA_HEAD + _json(message["response_format"])
    return text


def _developer(message: Message) -> str:
    content = _text(message)
    if not content:
        raise EncodingError("a developer message has no content; write one or leave it out")
    text = "\n\n" + tools_text(message["tools"]) if message.get("tools") else ""
    if message.get("response_format"):
        text += "\n\n" + _SCHEMA_HEAD + _json(message["response_format"])
    return f"{text}\n\n# The user's message is: {content}"


def _assistant(message: Message, index: int, thinks: bool) -> str:
    reasoning, calls = message.get("reasoning_content") or "", message.get("tool_calls") or ()
    text = ""
    if thinks:
        if not reasoning and not calls:
            raise EncodingError(
                f"messages[{index}] follows the last user message in thinking mode, but has neither"
                " reasoning_content nor tool_calls"
            )
        text = reasoning + THINK_END
    text += _text(message)
    if calls:
        text += "\n\n" + _calls(calls)
    return text + EOS


def _calls(calls: Sequence[Mapping[str, Any]]) -> str:
    invokes = "\n".join(_invoke(call.get("function", call)) for call in calls)
    return f"<{DSML}function_calls>\n{invokes}\n</{DSML}function_calls>"


def _invoke(function: Mapping[str, Any]) -> str:
    arguments: Any = function.get("arguments") or {}
    try:
        arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
        if not isinstance(arguments, Mapping):
            raise ValueError("they are no JSON object")
        # In here, too: what was just shallow enough to be read may be too deep to be written.
        lines = "\n".join(_parameter(str(key), value) for key, value in arguments.items())  # pyright: ignore
    except (ValueError, RecursionError) as e:
        raise EncodingError(f"arguments of tool call {function.get('name')!r}: {e}") from e
    return f'<{DSML}invoke name="{function.get("name")}">\n{lines}\n</{DSML}invoke>'


def _parameter(name: str, value: Any) -> str:
    is_string = isinstance(value, str)
    text = value if is_string else _json(value)
    flag = "true" if is_string else "false"
    return f'<{DSML}parameter name="{name}" string="{flag}">{text}</{DSML}parameter>'


def _tool(messages: Sequence[Message], index: int, thinks: bool) -> str:
    """One result; results belong to calls by their order, never by id."""
    caller = index - 1
    while caller >= 0 and messages[caller].get("role") == "tool":
        caller -= 1
    calls = messages[caller].get("tool_calls") or () if caller >= 0 else ()
    number = index - caller
    if number > len(calls):
        raise EncodingError(
            f"messages[{index}] is tool result {number} of {len(calls)} tool calls before it"
        )
    text = "\n\n<function_results>" if number == 1 else ""
    text += f"\n<result>{_text(messages[index])}</result>"
    if number == len(calls):
        text += "\n</function_results>\n\n" + (THINK if thinks else THINK_END)
    return text


def _text(message: Message) -> str:
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


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
