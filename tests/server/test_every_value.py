"""No value of a request's words is taken for another: each is tried, and each says something of its
own, but for those that are written down here as the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from msgspec import inspect
from read_requests import what_is_read

from lostwax.server.gateway.prepare import KINDS
from lostwax.server.gateway.prepared import Route

USER: dict[str, Any] = {"role": "user", "content": "Hi"}
OBJECT = {"type": "object"}
NAMES = ("add", "now")
CHAT_TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": OBJECT}} for name in NAMES
]
FLAT_TOOLS = [{"type": "function", "name": name, "parameters": OBJECT} for name in NAMES]
MESSAGES_TOOLS = [{"name": name, "input_schema": OBJECT} for name in NAMES]
CALL = {"id": "1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
OLLAMA_CALL = {"function": {"name": "add"}}
ITEM = {"type": "message", "role": "assistant", "content": "x"}
ITEM_CALLED = (
    {"type": "function_call", "call_id": "1", "name": "add", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "1", "output": "x"},
)
REASONING = {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "y"}]}
LOGPROBS = "message.output_text.logprobs"
MODES = ("none", "auto", "required")


def _messages(**said: Any) -> dict[str, Any]:
    return {"messages": [USER], "max_tokens": 8, **said}


def _before_user(*turns: Any) -> dict[str, Any]:
    return {"messages": [*turns, USER]}


def _input(*items: Any) -> dict[str, Any]:
    return {"input": [USER, *items, USER]}


def _thought(*items: Any) -> dict[str, Any]:
    return {"input": [USER, *items], "reasoning": {"effort": "high"}}


def _of_roles(call: dict[str, Any], *roles: str) -> dict[Any, dict[str, Any]]:
    """A message of each role, and the result of a call."""
    said = {role: _before_user({"role": role, "content": "x"}) for role in roles}
    asked = {"role": "assistant", "content": "x", "tool_calls": [call]}
    return said | {"tool": _before_user(USER, asked, {"role": "tool", "content": "x"})}


BODIES: dict[str, tuple[Route, dict[Any, dict[str, Any]]]] = {
    "Message.role": (
        "chat", _of_roles(CALL, "system", "developer", "user", "assistant"),
    ),
    "ChatRequest.tool_choice": (
        "chat", {mode: _before_user() | {"tools": CHAT_TOOLS, "tool_choice": mode}
                 for mode in MODES},
    ),
    "Item.type": (
        "responses", {
            "message": _thought(ITEM, *ITEM_CALLED),
            "function_call": _thought(ITEM_CALLED[0], USER),
            "function_call_output": _thought(*ITEM_CALLED),
            "reasoning": _thought(REASONING, *ITEM_CALLED),
        },
    ),
    "Item.status": (
        "responses", {status: _input(ITEM | {"status": status})
                      for status in ("in_progress", "completed", "incomplete")},
    ),
    "Item.role": (
        "responses", {role: _input(ITEM | {"role": role})
                      for role in ("system", "developer", "user", "assistant")},
    ),
    "Item.phase": (
        "responses", {phase: _input(ITEM | {"phase": phase})
                      for phase in ("commentary", "final_answer")},
    ),
    "ResponsesRequest.tool_choice": (
        "responses", {mode: {"input": "Hi", "tools": FLAT_TOOLS, "tool_choice": mode}
                      for mode in MODES},
    ),
    "Reasoning.effort": (
        "responses", {effort: {"input": "Hi", "reasoning": {"effort": effort}}
                      for effort in
                      ("none", "minimal", "low", "medium", "high", "xhigh", "max")},
    ),
    "ResponsesRequest.include": (
        "responses", {name: {"input": "Hi", "include": [name]}
                      for name in (LOGPROBS, "reasoning.encrypted_content")},
    ),
    "Turn.role": (
        "messages", {role: _messages(messages=[USER, {"role": role, "content": "x"}, USER])
                     for role in ("user", "assistant", "system")},
    ),
    "ToolChoice.type": (
        "messages", {
            kind: _messages(tools=MESSAGES_TOOLS, tool_choice={"type": kind} | named)
            for kind, named in
            (("auto", {}), ("any", {}), ("tool", {"name": "add"}), ("none", {}))
        },
    ),
    "Thinking.type": (
        "messages", {kind: _messages(thinking={"type": kind})
                     for kind in ("enabled", "adaptive", "disabled")},
    ),
    "OllamaMessage.role": (
        "ollama", _of_roles(OLLAMA_CALL, "system", "user", "assistant"),
    ),
    "OllamaRequest.think": (
        "ollama", {think: {"messages": [USER], "think": think}
                   for think in (False, True, "low", "medium", "high")},
    ),
}  # fmt: skip
"""A body for each value of a field that takes words."""
SAME: dict[str, set[Any]] = {
    "Item.status": {"in_progress", "completed", "incomplete"},
    "Item.phase": {"commentary", "final_answer"},
    "Item.role": {"system", "developer"},
    "Reasoning.effort": {"minimal", "low", "medium", "high", "xhigh", "max"},
    "Thinking.type": {"enabled", "adaptive"},
    "OllamaRequest.think": {True, "low", "medium", "high"},
}
"""Values that say the same: who sends one gets what the others get."""


def _words() -> dict[str, set[Any]]:
    """The fields of all requests that generate which take one of several words, and these."""
    found: dict[str, set[Any]] = {}
    seen = set[Any]()
    left: list[tuple[str, inspect.Type]] = [
        ("", inspect.type_info(kind)) for kind in KINDS.values()
    ]
    while left:
        name, kind = left.pop()
        if isinstance(kind, inspect.LiteralType) and len(kind.values) > 1:
            found.setdefault(name, set()).update(kind.values)
        left += [(name, inner) for inner in _inside(kind)]
        if isinstance(kind, inspect.StructType) and kind.cls not in seen:
            seen.add(kind.cls)
            left += [(f"{kind.cls.__name__}.{f.encode_name}", f.type) for f in kind.fields]
    return found


def _inside(kind: inspect.Type) -> Iterator[inspect.Type]:
    if isinstance(kind, inspect.Metadata):
        yield kind.type
    elif isinstance(kind, inspect.UnionType):
        yield from kind.types
    elif isinstance(kind, inspect.ListType):
        yield kind.item_type
    elif isinstance(kind, inspect.DictType):
        yield from (kind.key_type, kind.value_type)


def test_each_value_of_each_request_is_tried() -> None:
    words = _words()
    assert words.keys() == BODIES.keys()
    for name, values in words.items():
        assert values <= BODIES[name][1].keys(), name


@pytest.mark.parametrize("name", BODIES)
def test_a_value_says_what_no_other_does(name: str) -> None:
    route, bodies = BODIES[name]
    same = SAME.get(name, set())
    said: dict[bytes, Any] = {}
    for value, body in bodies.items():
        found = what_is_read(route, body)
        assert isinstance(found, dict), f"{name} {value}: {found}"
        other = said.setdefault(msgspec.json.encode(found, order="sorted"), value)
        assert other is value or {other, value} <= same, f"{name}: {value} is {other}"
    assert len(said) == len(bodies) - max(len(same) - 1, 0), f"{name}: of {same} not all are one"
