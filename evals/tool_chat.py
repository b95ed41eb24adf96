"""A conversation with tools as OpenAI's chats have it. Knows no request and no answer.

Task files have tools in the system message and match results to calls by their order, as the
model's encoding does; chats have tools beside the messages and match results by ids.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from lostwax.evals.task import TaskError

_FIELDS = {"role", "content", "reasoning_content", "tool_calls", "tool_call_id"}


def tool_chat(id_: str, messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`messages` and `tools` of a request that a server's own encoding renders as the example's.

    Raises TaskError where chats have no place for something.
    """
    told = [dict(message) for message in messages]
    tools: list[Any] = []
    if told and told[0].get("role") == "system":
        tools = told[0].pop("tools", None) or []
        if tools and not told[0].get("content") and told[0].keys() <= {"role", "content"}:
            del told[0]  # it was there for them
    for message in told:
        if unfit := " and ".join(sorted(message.keys() - _FIELDS)):
            raise TaskError(
                f"{id_} has {unfit} in a {message.get('role')} message, where chats have no place"
                " for it; leave out --endpoint chat"
            )
    return {"messages": list(_with_ids(told))} | ({"tools": _wrapped(tools)} if tools else {})


def _with_ids(messages: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The same, each call with an id and its arguments as text, each result with its call's id."""
    waiting = iter(list[str]())
    num_calls = 0
    for message in messages:
        if message.get("role") == "tool":
            # One more than there are calls was refused with the file.
            yield {"tool_call_id": next(waiting)} | message
            continue
        calls: list[Any] = message.get("tool_calls") or []
        made = [_call(call, f"call_{num_calls + n}") for n, call in enumerate(calls)]
        num_calls += len(made)
        waiting = iter([call["id"] for call in made])
        yield message | ({"tool_calls": made} if made else {})


def _call(call: Mapping[str, Any], name: str) -> dict[str, Any]:
    function = cast("Mapping[str, Any]", call.get("function", call))
    arguments: Any = function.get("arguments") or {}
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    said = {"name": function.get("name"), "arguments": arguments}
    return {"id": call.get("id") or name, "type": "function", "function": said}


def _wrapped(tools: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{"type": "function", "function": tool.get("function", tool)} for tool in tools]
