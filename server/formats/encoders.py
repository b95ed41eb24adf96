"""Chooses who renders a chat by the name of its format. Knows no marks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from lostwax.ir.contract.model import CHAT_SPECIALE, CHAT_V31, CHAT_V32, CHAT_V32_EXP
from lostwax.server.formats.encoding_v31 import TOOL_MARKS, encode_v31
from lostwax.server.formats.encoding_v32 import (
    ASSISTANT,
    BOS,
    EOS,
    THINK,
    THINK_END,
    USER,
    EncodingError,
    encode_pieces,
)
from lostwax.server.formats.pieces import Piece

Format = Literal["deepseekv32", "deepseekv31", "none"]
"""Of chats and of the answers to them; "none": the calls of tools are not read."""
FORMAT_OF: Mapping[str, Format] = {
    CHAT_V32: "deepseekv32",
    CHAT_SPECIALE: "none",
    CHAT_V31: "deepseekv31",
    CHAT_V32_EXP: "deepseekv31",
}
"""How answers are read, by the artifact's `chat_encoding`."""

MARKS = (BOS, EOS, USER, ASSISTANT, THINK, THINK_END, *TOOL_MARKS)
"""What is one token wherever it is structure. V3.2's DSML is none: its mark is text."""


def marks_in(pieces: Sequence[Piece]) -> list[str]:
    """The marks that a prompt's structure holds, each of which its tokenizer must have."""
    structure = "".join(piece.text for piece in pieces if piece.is_structure)
    return [mark for mark in MARKS if mark in structure]


def encode_chat(
    encoding: str,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None = None,
    *,
    thinking: bool = False,
    response_format: Any = None,
    trust_content: bool = False,
) -> list[Piece]:
    """The prompt of a chat, to where the model goes on.

    `encoding` is an artifact's `chat_encoding`, or one of its formats. For V3.2, `tools` and
    `response_format` (a JSON schema) of the request go to the first message, before which an empty
    system message stands where it is of another role. V3.1's chats have no place for a
    `response_format`: there it is refused, and a grammar alone can hold an answer to it. Raises
    EncodingError, also for what the model has no form for.
    """
    if encoding == CHAT_SPECIALE:
        _require_no_tools(messages, tools)
    if encoding in (CHAT_V31, CHAT_V32_EXP, "deepseekv31"):
        if response_format:
            raise EncodingError(
                "this model's chats have no place for a schema; say it in a message"
            )
        is_exp = encoding == CHAT_V32_EXP
        return encode_v31(
            messages, tools, thinking=thinking, exp=is_exp, trust_content=trust_content
        )
    if encoding not in (CHAT_V32, CHAT_SPECIALE, "deepseekv32"):
        known = ", ".join([*FORMAT_OF, "deepseekv32", "deepseekv31"])
        raise EncodingError(
            f"{encoding!r} is no chat encoding that is known here; these are: {known}"
        )
    taken, num_put = list(messages), 0
    if tools or response_format:
        if not taken or taken[0].get("role") != "system":
            taken.insert(0, {"role": "system", "content": ""})
            num_put = 1
        taken[0] = _with_request(taken[0], tools or (), response_format)
    try:
        return encode_pieces(taken, "thinking" if thinking else "chat", trust_content=trust_content)
    except EncodingError as error:
        if error.index is None or not num_put:
            raise
        raise EncodingError(error.reason, error.index - num_put) from error


def _with_request(
    system: Mapping[str, Any], tools: Sequence[Mapping[str, Any]], response_format: Any
) -> dict[str, Any]:
    """The first message with the request's tools behind its own, and the one schema there is."""
    if response_format and system.get("response_format"):
        raise EncodingError("and the request both bring a schema; give one of them", 0)
    return {
        **system,
        "tools": [*(system.get("tools") or ()), *tools],
        "response_format": response_format or system.get("response_format"),
    }


def _require_no_tools(
    messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None
) -> None:
    calls = (each for each in messages if each.get("tools") or each.get("tool_calls"))
    if tools or next(calls, None) or any(each.get("role") == "tool" for each in messages):
        raise EncodingError(
            "DeepSeek-V3.2-Speciale was trained without tools: leave out tools, their calls and"
            " results, or serve DeepSeek-V3.2"
        )
