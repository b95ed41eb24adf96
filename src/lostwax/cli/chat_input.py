"""What `lostwax chat` reads: text and JSON within bounds, chats as the server reads them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import msgspec
from cyclopts import Parameter

from lostwax.ir.contract.foreign_file import BadFile, read_bounded

if TYPE_CHECKING:
    from lostwax.server.gateway.chat_models import ChatRequest

MAX_BYTES = 64 << 20
Format = Annotated[
    Literal["deepseekv32", "deepseekv31"],
    Parameter(name="--format"),
]


class BadInput(Exception):
    """What was given on standard input or in a file cannot be read; the message says why."""


def read_text() -> str:
    """The text on standard input. Raises BadInput."""
    return _as_text(_read_bytes(), "standard input")


def read_chat(kind: type[ChatRequest]) -> ChatRequest:
    """The chat on standard input: a request, or a list of its messages. Raises BadInput, and
    ApiError as the server would for the request."""
    from lostwax.server.gateway.decoding import decode, require_few_strings

    body = _read_bytes()
    _as_json(body, "standard input")
    if not body.lstrip().startswith(b"{"):
        body = b'{"messages":%b}' % body
    require_few_strings(body)
    return decode(body, kind)


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
