"""The shapes of answers of `/v1/messages`, for `/openapi.json`: nothing is built from them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from lostwax.server.gateway.answer_models import Count, Id


class TextBlock(Struct, forbid_unknown_fields=True, tag_field="type", tag="text"):
    """What the model says."""

    text: str


class ThinkingBlock(Struct, forbid_unknown_fields=True, tag_field="type", tag="thinking"):
    """What the model thinks; nothing is signed here."""

    thinking: str
    signature: Annotated[str, Meta(max_length=0)]


class ToolUseBlock(Struct, forbid_unknown_fields=True, tag_field="type", tag="tool_use"):
    """A call that the client is asked to run."""

    id: Id
    name: Id
    input: dict[str, Any]


class MessageUsage(Struct, forbid_unknown_fields=True):
    """Tokens of the prompt that were run and that were cached, and of the answer."""

    input_tokens: Count
    cache_creation_input_tokens: Count
    cache_read_input_tokens: Count
    output_tokens: Count


class MessageAnswer(Struct, forbid_unknown_fields=True):
    """The model's turn."""

    id: Id
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[TextBlock | ThinkingBlock | ToolUseBlock]
    stop_reason: Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"]
    stop_sequence: str | None
    usage: MessageUsage


class MessageEvent(Struct):
    """An event of its stream, with the fields that Anthropic's has of this type."""

    type: str


class CountedTokens(Struct, forbid_unknown_fields=True):
    """How many tokens a prompt has."""

    input_tokens: Count


class MessagesErrorFields(Struct, forbid_unknown_fields=True):
    """What is wrong."""

    type: str
    message: Annotated[str, Meta(min_length=1)]


class MessagesError(Struct, forbid_unknown_fields=True):
    """Every answer with a status of 400 and above."""

    type: Literal["error"]
    error: MessagesErrorFields
