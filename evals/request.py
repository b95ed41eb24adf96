"""Turns an example into the body of an HTTP request, and says how to read its answer.

Plain messages go to /v1/chat/completions. Those with tools or a response format are rendered by
DeepSeek-V3.2's own encoding and go to /v1/completions, unless chats are asked for, where tools have
a field of their own.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from lostwax.evals.task import Chat, Example, Sampling, TaskError, Text
from lostwax.evals.tool_chat import tool_chat
from lostwax.ir.contract.canonical import canonical_json
from lostwax.server.formats.encoding_v32 import EncodingError, Mode, encode_messages

Endpoint = Literal["auto", "chat", "completions"]
_CHAT_FIELDS = {"role", "content", "reasoning_content"}
_CHAT_ROLES = {"system", "developer", "user", "assistant"}


@dataclass(frozen=True, slots=True)
class Request:
    """Where to post what. `encoding` is the mode of a rendered prompt, whose answer is parsed."""

    path: Literal["/chat/completions", "/completions"]
    body: dict[str, Any]
    encoding: Mode | None = None

    def digest(self, example: Example) -> str:
        """Names what is asked and what is right: equal digests mean that a sample still counts."""
        right = [example.kind, msgspec.to_builtins(example.reference), example.completion]
        asked = [self.path, self.body, *right]
        return hashlib.sha256(canonical_json(asked)).hexdigest()[:16]


def build_request(
    example: Example, sampling: Sampling, model: str, repeat: int, endpoint: Endpoint
) -> Request:
    """The request of one repeat. Fields that would ask for nothing are left out."""
    body: dict[str, Any] = {"model": model, "max_tokens": sampling.max_tokens}
    body["temperature"] = sampling.temperature
    if sampling.top_p < 1:
        body["top_p"] = sampling.top_p
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if sampling.temperature > 0:
        body["seed"] = sampling.seed + repeat
    match example.request:
        case Text(prompt):
            if endpoint == "chat":
                raise TaskError(f"{example.id} is a text prompt; leave out --endpoint chat")
            return Request("/completions", body | {"prompt": prompt})
        case Chat(messages, thinking):
            return _ask(example.id, messages, thinking, body, endpoint)


def _ask(
    id_: str,
    messages: tuple[dict[str, Any], ...],
    thinking: bool,
    body: dict[str, Any],
    endpoint: Endpoint,
) -> Request:
    fits = all(m.get("role") in _CHAT_ROLES and m.keys() <= _CHAT_FIELDS for m in messages)
    if endpoint == "chat" or (fits and endpoint == "auto"):
        asked = {"messages": list(messages)} if fits else tool_chat(id_, messages)
        # Other servers may not know the field: it is sent only where it changes something.
        extra = {"chat_template_kwargs": {"thinking": True}} if thinking else {}
        return Request("/chat/completions", body | asked | extra)
    mode: Mode = "thinking" if thinking else "chat"
    try:
        prompt = encode_messages(messages, mode)
    except EncodingError as error:
        raise TaskError(f"{id_}: {error}") from error
    return Request("/completions", body | {"prompt": prompt}, mode)
