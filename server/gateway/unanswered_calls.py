"""Calls of a history that broke, and that nobody ran. Knows no encoding.

A stream names a call before it is whole. Of one that breaks, some clients (LangChain) keep what was
told, run the whole calls alone, and send all of them back: the broken one without a result, for
which the encoding has no place. Its text came as content, too, and is rendered as that.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from lostwax.server.formats.call_arguments import object_of
from lostwax.server.gateway.chat_models import ChatRequest, Message, ToolCall


def without_unanswered(request: ChatRequest) -> ChatRequest:
    """The request without such calls; one of a JSON object that has no result stays."""
    messages = request.messages
    told = [
        _settled(message, _results(messages, index)) if message.tool_calls else message
        for index, message in enumerate(messages)
    ]
    if all(mine is its for mine, its in zip(told, messages, strict=True)):
        return request
    return msgspec.structs.replace(request, messages=told)


def is_broken(call: ToolCall) -> bool:
    """Whether its arguments are no JSON object."""
    return object_of(call.function.arguments_text) is None


def _settled(message: Message, answered: Sequence[str | None]) -> Message:
    calls = message.tool_calls or []
    num_missing = len(calls) - len(answered)
    kept = list[ToolCall]()
    for call in reversed(calls):  # of calls without ids the first have the results
        if num_missing > 0 and (call.id is None or call.id not in answered) and is_broken(call):
            num_missing -= 1
        else:
            kept.append(call)
    if len(kept) == len(calls):
        return message
    return msgspec.structs.replace(message, tool_calls=kept[::-1] or None)


def _results(messages: Sequence[Message], index: int) -> list[str | None]:
    """The ids of the calls that the results right behind a message answer."""
    found = list[str | None]()
    while (index := index + 1) < len(messages) and messages[index].role == "tool":
        found.append(messages[index].tool_call_id)
    return found
