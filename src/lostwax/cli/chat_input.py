"""What `lostwax chat` reads: text and JSON within bounds, messages and tools of the right types."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import msgspec
from cyclopts import Parameter
from msgspec import Struct

from lostwax.ir.contract.foreign_file import BadFile, read_bounded

MAX_BYTES = 64 << 20
Format = Annotated[
    Literal["deepseekv32", "deepseekv31"],
    Parameter(name="--format"),
]
_UNTOLD = ("continue_final_message", "add_generation_prompt", "chat_template", "documents",
           "functions", "response_format", "tool_choice")  # fmt: skip
"""Fields of a request that would change its prompt, and that are not read here."""


class BadInput(Exception):
    """What was given on standard input or in a file cannot be read; the message says why."""


class _Function(Struct):
    name: str
    arguments: str | dict[str, Any] | None = None


class _Call(Struct):
    function: _Function


class _Message(Struct, forbid_unknown_fields=True):
    """Every field that a message may have, whether or not a prompt shows it."""

    role: str
    content: str | list[dict[str, Any]] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_Call] | None = None
    tools: list[dict[str, Any]] | None = None
    response_format: dict[str, Any] | None = None
    tool_call_id: str | None = None
    name: str | None = None
    refusal: None = None
    annotations: list[Any] | None = None
    audio: None = None
    function_call: None = None


class _Settings(Struct, forbid_unknown_fields=True):
    """Of `chat_template_kwargs`; `enable_thinking` is another name of `thinking`."""

    thinking: bool | None = None
    enable_thinking: bool | None = None
    trust_content: bool | None = None


@dataclass(frozen=True, slots=True)
class Chat:
    """What a prompt is rendered of. `thinking` is None where nothing was said of it."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]]
    thinking: bool | None
    trust_content: bool


def read_text() -> str:
    """The text on standard input. Raises BadInput."""
    return _as_text(_read_bytes(), "standard input")


def read_chat() -> Chat:
    """The chat on standard input: a list of messages, or a request. Raises BadInput."""
    given = _as_json(_read_bytes(), "standard input")
    is_request = isinstance(given, dict)
    request = cast("dict[str, Any]", given) if is_request else {"messages": given}
    if untold := [name for name in _UNTOLD if request.get(name) is not None]:
        raise BadInput(
            f"{untold[0]} is not rendered here: leave it out (a schema may stand in the first"
            " message, as its response_format)"
        )
    messages = _as(list[_Message], request.get("messages"), "messages")
    settings = _as(_Settings, request.get("chat_template_kwargs") or {}, "chat_template_kwargs")
    said = {settings.thinking, settings.enable_thinking} - {None}
    if len(said) > 1:
        raise BadInput("thinking and enable_thinking say the opposite; give one")
    for index, message in enumerate(messages):
        _require_tools(message.tools or ())
        offers = message.tools or message.response_format
        if offers and message.role not in ("system", "developer"):
            raise BadInput(
                f"messages[{index}] is of role {message.role} and brings tools or a"
                " response_format; put them into a system or a developer message"
            )
    tools = _as(list[dict[str, Any]], request.get("tools") or [], "tools")
    _require_tools(tools)
    rendered = cast("list[dict[str, Any]]", request["messages"])
    return Chat(
        [_with_reasoning(message) for message in rendered],
        tools,
        said.pop() if said else None,
        bool(settings.trust_content),
    )


def read_tools(path: Path) -> list[dict[str, Any]]:
    """The tools in a file: a list, or a request's `tools`. Raises BadInput."""
    try:
        content = read_bounded(path, MAX_BYTES)
    except BadFile as error:
        raise BadInput(f"{error}; give a file of tools") from error
    given = _as_json(content, str(path))
    listed: Any = cast("dict[str, Any]", given).get("tools") if isinstance(given, dict) else given
    tools = _as(list[dict[str, Any]], listed, f"the tools of {path}")
    _require_tools(tools)
    return tools


def _with_reasoning(message: dict[str, Any]) -> dict[str, Any]:
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    return {**message, "reasoning_content": reasoning}


def _require_tools(tools: Sequence[dict[str, Any]]) -> None:
    for tool in tools:
        function: Any = tool.get("function", tool)
        if not isinstance(function, dict) or not isinstance(
            cast("dict[str, Any]", function).get("name"), str
        ):
            raise BadInput("a tool has no name; give each as OpenAI has them")


def _read_bytes() -> bytes:
    return sys.stdin.buffer.read(MAX_BYTES + 1)


def _as_text(content: bytes, what: str) -> str:
    if len(content) > MAX_BYTES:
        raise BadInput(f"{what} has more than {MAX_BYTES >> 20} MiB; give less")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise BadInput(f"{what} is no UTF-8: {error}") from error


def _as_json(content: bytes, what: str) -> Any:
    try:
        return msgspec.json.decode(_as_text(content, what))
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadInput(f"{what} is no JSON: {error}") from error


def _as(kind: Any, value: Any, what: str) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise BadInput(f"{what}: {error}") from error
