"""Renders chat messages as the prompt of DeepSeek-V3.1 and of V3.2-Exp. Knows no tokenizer.

The rules are those of the two models' chat templates, in Python, as a template is a program that a
checkpoint brings. The tools' text is that of the templates with tools which other servers use; the
models' own templates have none. Marks are structure, and what messages bring is text (`pieces.py`)
unless `trust_content` says otherwise; nothing is told apart by plain tags here, so no text is ever
written otherwise.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from lostwax.server.formats.call_arguments import object_of
from lostwax.server.formats.encoding_v32 import (
    ASSISTANT,
    BOS,
    EOS,
    MAX_SHOWN_CHARS,
    THINK,
    THINK_END,
    USER,
    EncodingError,
    Message,
    place_of_call,
    text_of,
)
from lostwax.server.formats.pieces import Piece

CALLS, CALLS_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"  # noqa: RUF001
CALL, CALL_END = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>"  # noqa: RUF001
SEPARATOR = "<｜tool▁sep｜>"  # noqa: RUF001
OUTPUT, OUTPUT_END = "<｜tool▁output▁begin｜>", "<｜tool▁output▁end｜>"  # noqa: RUF001
TOOL_MARKS = (CALLS, CALLS_END, CALL, CALL_END, SEPARATOR, OUTPUT, OUTPUT_END)

_TOOLS_HEAD = "## Tools\nYou have access to the following tools:\n"
_TOOLS_END = f"""
IMPORTANT: ALWAYS adhere to this exact format for tool use:
{CALLS}{CALL}tool_call_name{SEPARATOR}tool_call_arguments{CALL_END}\
{{{{additional_tool_calls}}}}{CALLS_END}

Where:

- `tool_call_name` must be an exact match to one of the available tools
- `tool_call_arguments` must be valid JSON that strictly follows the tool's Parameters Schema
- For multiple tool calls, chain them directly without separators or spaces
"""
_NO_NAME = re.compile("[<\x00-\x1f\x7f\x85\u2028\u2029]")


def is_tool_name(text: str) -> bool:
    """Whether a tool may be called so: no `<`, which marks begin with, line break or control."""
    return bool(text) and _NO_NAME.search(text) is None


def encode_v31(
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]] | None,
    *,
    thinking: bool,
    exp: bool,
    trust_content: bool = False,
) -> list[Piece]:
    """The whole prompt, from the begin-of-sentence mark to where the model goes on.

    `exp` is V3.2-Exp's template, which opens the model's turn behind any last message but a tool's,
    where V3.1's does so behind a user's only. Behind results both let the model go on as it is,
    without reasoning. Raises EncodingError.
    """
    chat = _Chat(exp, trust_content)
    chat.put(BOS)
    chat.system(messages, tools or ())
    for index, message in enumerate(messages):
        role = message.get("role")
        if message.get("tools") or message.get("response_format"):
            raise EncodingError(
                "brings tools or a schema of its own, for which this model's chats have no place;"
                " give tools beside the messages",
                index,
            )
        if role == "user":
            chat.user(text_of(message))
        elif role == "assistant":
            chat.assistant(index, message)
        elif role == "tool":
            chat.tool(index, message)
        elif role != "system":
            raise EncodingError(
                f"has role {role!r}, which this model's chats do not have; use system, user,"
                " assistant, tool",
                index,
            )
    if chat.opens_turn:
        chat.put(ASSISTANT)
        chat.put(THINK if thinking else THINK_END)
    return chat.pieces


class _Chat:
    """The pieces so far, and what of the turns before decides how the next is written."""

    def __init__(self, exp: bool, trust_content: bool) -> None:
        self.pieces: list[Piece] = []
        self._exp = exp
        self._trusts = trust_content
        self._is_behind_user = False
        self._is_behind_tool = False
        self._is_behind_system_only = False
        self._num_open = 0
        """Calls without a result yet."""

    @property
    def opens_turn(self) -> bool:
        """Whether the model's turn is still to be opened."""
        return not self._is_behind_tool and (self._exp or self._is_behind_user)

    def put(self, text: str) -> None:
        """Structure."""
        self.pieces.append(Piece(text, True))

    def system(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> None:
        """All system messages, wherever they stand, and the tools."""
        texts = [text_of(each) for each in messages if each.get("role") == "system"]
        self._is_behind_system_only = bool(texts)
        for number, text in enumerate(texts):
            self.put("\n\n" if number else "")
            self._bring(text)
        if tools:
            self.put("\n\n" + _TOOLS_HEAD)
            for tool in tools:
                self._offer(tool.get("function", tool))
            self.put(_TOOLS_END)

    def user(self, text: str) -> None:
        """A user's turn."""
        self.put(USER)
        self._bring(text)
        self._turned(user=True)

    def assistant(self, index: int, message: Message) -> None:
        """A turn of the model's; its reasoning is never kept."""
        text, calls = text_of(message), message.get("tool_calls") or ()
        if self._is_behind_user or (calls and self._exp and self._is_behind_system_only):
            self.put(ASSISTANT)
            self.put(THINK_END)
        if not calls and not self._is_behind_tool:
            head, closed, rest = text.partition(THINK_END)
            text = rest if closed else head
        self._bring(text)
        if calls:
            self.put(CALLS)
            for number, call in enumerate(calls):
                self._call(call.get("function", call), index, number)
            self.put(CALLS_END)
        self.put(EOS)
        self._turned(calls=len(calls))

    def tool(self, index: int, message: Message) -> None:
        """One result; results belong to calls by their order, never by id."""
        if not self._num_open:
            raise EncodingError("is a tool result that no call is left for", index)
        self.put(OUTPUT)
        self._bring(text_of(message))
        self.put(OUTPUT_END)
        self._turned(tool=True, calls=self._num_open - 1)

    def _turned(self, *, user: bool = False, tool: bool = False, calls: int = 0) -> None:
        self._is_behind_user, self._is_behind_tool = user, tool
        self._is_behind_system_only = False
        self._num_open = calls

    def _bring(self, text: str) -> None:
        self.pieces.append(Piece(text, self._trusts))

    def _offer(self, function: Mapping[str, Any]) -> None:
        name = str(function.get("name"))
        if not self._takes_name(name):
            raise EncodingError(_no_name(name))
        self.put("\n### ")
        self._bring(name)
        self.put("\nDescription: ")
        self._bring(str(function.get("description") or ""))
        self.put("\n\nParameters: ")
        self._bring(json.dumps(function.get("parameters") or {}, ensure_ascii=False))
        self.put("\n")

    def _call(self, function: Mapping[str, Any], index: int, number: int) -> None:
        name = str(function.get("name"))
        if not self._takes_name(name):
            raise EncodingError(f"{place_of_call(number)} {_no_name(name)}", index)
        arguments: Any = function.get("arguments") or "{}"
        if not isinstance(arguments, str):
            if (found := object_of(arguments)) is None:
                said = f"{place_of_call(number)} arguments that are no JSON object"
                raise EncodingError(said, index)
            arguments = json.dumps(found, ensure_ascii=False)
        self.put(CALL)
        self._bring(name)
        self.put(SEPARATOR)
        self._bring(arguments)  # as it is, in the template, too: also of a call that broke
        self.put(CALL_END)

    def _takes_name(self, name: str) -> bool:
        return self._trusts or is_tool_name(name)


def _no_name(name: str) -> str:
    return (
        f"{name[:MAX_SHOWN_CHARS]!r}, which cannot name a tool: it is empty or holds a '<', a line"
        " break or a control character; rename it"
    )
