"""Reads the prompts of a completion, each text or token ids. Knows lengths, no tokenizer.

A prompt is one of four forms, which its first characters tell apart; so an error names what is
wrong in the form that was meant, and nothing is read twice. How many ids there are is counted
before they are read: ids hold no text, so each but the first of a list has a comma before it.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from msgspec import Meta, Raw

from lostwax.server.gateway.decoding import decode, missing
from lostwax.server.gateway.errors import ApiError
from lostwax.server.gateway.models import MAX_PROMPTS, TokenId

Prompt = str | list[int]
_FORM = re.compile(rb'(")|\[\s*(?:(")|(\[)|([-0-9])|(\]))')
_FORMS: tuple[Any, ...] = (
    str,
    Annotated[list[str], Meta(max_length=MAX_PROMPTS)],
    Annotated[list[list[TokenId]], Meta(max_length=MAX_PROMPTS)],
    list[TokenId],
    list[TokenId],
)


def read_prompts(raw: Raw, max_context: int, max_tokens: int) -> list[Prompt]:
    """The prompts; ApiError where there is none, or one has more ids than `max_context`, or all
    together have more than `max_tokens`."""
    given = bytes(raw)
    if given == b"null":
        raise missing("prompt")
    form = _FORM.match(given)
    if form is None:
        message = "'prompt': a text, a list of token ids or a list of either belongs here"
        raise ApiError(400, message, code="invalid_value", param="prompt")
    kind = _FORMS[(form.lastindex or 1) - 1]
    if form[3]:
        _require_few(given.count(b"[") - 1, MAX_PROMPTS, "prompts", "invalid_value")
        _require_few(given.count(b",") + 1, max_tokens, "token ids", "invalid_value")
    elif form[4]:
        _require_context(given.count(b",") + 1, max_context)
    read = decode(given, kind, "prompt")
    prompts: list[Prompt] = [read] if form[1] or form[4] else read
    if not prompts or not all(prompts):
        message = "the prompt is empty; give at least one token"
        raise ApiError(400, message, code="invalid_value", param="prompt")
    return prompts


def _require_context(count: int, max_context: int) -> None:
    if count > max_context:
        message = (
            f"this model's maximum context length is {max_context} tokens, but 'prompt' holds"
            f" {count}; shorten it"
        )
        raise ApiError(400, message, code="context_length_exceeded", param="prompt")


def _require_few(count: int, most: int, what: str, code: str) -> None:
    if count > most:
        message = f"'prompt' holds {count} {what}, and at most {most} are taken; send fewer"
        raise ApiError(400, message, code=code, param="prompt")
