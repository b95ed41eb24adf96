"""Chooses who renders a chat by the name of its format. Knows no marks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lostwax.server.formats.encoding_v32 import encode_pieces
from lostwax.server.formats.pieces import Piece


def encode_chat(
    format: str,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None = None,
    *,
    thinking: bool = False,
    response_format: Any = None,
    trust_content: bool = False,
) -> list[Piece]:
    """The prompt of a chat, to where the model goes on.

    `tools` and `response_format` (a JSON schema) of the request go to the first message, before
    which an empty system message stands where it is of another role. Raises EncodingError.
    """
    taken = list(messages)
    if tools or response_format:
        if not taken or taken[0].get("role") != "system":
            taken.insert(0, {"role": "system", "content": ""})
        given = {"tools": tools, "response_format": response_format}
        taken[0] = {**taken[0], **{name: value for name, value in given.items() if value}}
    return encode_pieces(taken, "thinking" if thinking else "chat", trust_content=trust_content)
