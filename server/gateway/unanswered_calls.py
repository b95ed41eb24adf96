"""A call of a history that broke, and that nobody ran. Knows no prompt.

A stream names a call before it is whole. Of one that breaks, some clients (LangChain) keep what was
told, run the whole calls alone, and send all of them back: the broken one without a result, for
which the encoding has no place. Its text came as content, too, and is rendered as that. No call is
read behind it, so it is the last one of its turn.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from lostwax.server.formats.call_arguments import object_of
from lostwax.server.formats.encoding_v31 import SEPARATOR
from lostwax.server.gateway.chat_models import ChatRequest, Message, ToolCall


def without_unanswered(request: ChatRequest) -> ChatRequest:
    """The request without such calls. One that may be run, or whose text is nowhere else, stays."""
    messages = request.messages
    told = [
        without_broken(message, _results(messages, index)) if message.tool_calls else message
        for index, message in enumerate(messages)
    ]
    if all(mine is its for mine, its in zip(told, messages, strict=True)):
        return request
    return msgspec.structs.replace(request, messages=told)


def without_broken(message: Message, answered: Collection[str | None]) -> Message:
    """A turn without its last call, where that is such a one; results of these ids stand behind
    the turn."""
    calls = message.tool_calls or []
    if len(answered) >= len(calls):  # without ids they are answered in their order
        return message
    last = calls[-1]
    is_answered = last.id is not None and last.id in answered
    if is_answered or not _is_broken(last) or not _is_held(message.text, last):
        return message
    return msgspec.structs.replace(message, tool_calls=calls[:-1] or None)


def _is_broken(call: ToolCall) -> bool:
    """Whether its arguments are no JSON object."""
    return object_of(call.function.arguments_text) is None


def _is_held(text: str, call: ToolCall) -> bool:
    """Whether a text has the call's beginning in a form that answers are read in: what a stream
    told of a broken one is not what the model wrote, but for its name."""
    name = call.function.name
    return f'invoke name="{name}"' in text or f"{name}{SEPARATOR}" in text


def _results(messages: Sequence[Message], index: int) -> list[str | None]:
    """The ids of the calls that the results right behind a message answer."""
    found = list[str | None]()
    while (index := index + 1) < len(messages) and messages[index].role == "tool":
        found.append(messages[index].tool_call_id)
    return found
