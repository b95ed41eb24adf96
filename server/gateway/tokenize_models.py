"""Requests of `/tokenize` and `/detokenize`, in vLLM's shapes. Knows no tokenizer."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Raw, Struct

from lostwax.server.gateway.chat_models import (
    MAX_MESSAGES,
    ChatRequest,
    Message,
    TemplateKwargs,
)
from lostwax.server.gateway.models import MAX_TOKEN_ID, Hint
from lostwax.server.gateway.tool_models import MAX_TOOLS, Tool
from lostwax.server.gateway.unsupported import FieldError, Unread, only, require_neutral

_ENCODER = "the prompt is rendered as /v1/chat/completions renders it"
_OF_CHATS = (
    "chat_template_kwargs",
    "tools",
    "add_generation_prompt",
    "continue_final_message",
)
"""What chats say beside their messages, and a text does not."""
_IDS = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": MAX_TOKEN_ID}}


class TokenizeRequest(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A text (`prompt`), or `messages` that are rendered first. A text gets what the tokenizer puts
    around one unless `add_special_tokens` is false; `return_token_strs` names each token, too."""

    model: Hint | None = None
    prompt: str | None = None
    messages: Annotated[list[Message], Meta(min_length=1, max_length=MAX_MESSAGES)] | None = None
    chat_template_kwargs: TemplateKwargs | None = None
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = None
    tools: Annotated[list[Tool], Meta(max_length=MAX_TOOLS)] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template: Annotated[Unread, only(remedy=_ENCODER)] = UNSET

    def __post_init__(self) -> None:
        require_neutral(self)
        if self.prompt is not None and self.messages is not None:
            raise FieldError("messages", "prompt stands beside it; give one of them")
        if self.prompt is None and self.messages is None:
            raise FieldError("prompt", "a text belongs here, or messages in its place")
        for name in _OF_CHATS:
            if self.messages is None and getattr(self, name):
                raise FieldError(name, "it goes with messages")
        if self.messages is not None and self.add_special_tokens:
            raise FieldError("add_special_tokens", f"it goes with prompt; {_ENCODER}")
        _ = self.chat  # what a chat refuses, this does

    @property
    def chat(self) -> ChatRequest | None:
        """The chat of these messages; None for a text."""
        if self.messages is None:
            return None
        return ChatRequest(messages=self.messages, **{n: getattr(self, n) for n in _OF_CHATS})


class DetokenizeRequest(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Ids whose text is asked for. `tokens` is its JSON: they are counted before they are read."""

    model: Hint | None = None
    tokens: Annotated[Raw, Meta(extra_json_schema=_IDS)]
