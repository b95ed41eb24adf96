"""Reads a whole completion of DeepSeek-V3.2: reasoning, content, tool calls. Knows no stream.

The inverse of `encoding_v32.py` and stricter than the model's own decoder: what the encoder could
not have written is an error that says what is wrong with it, such as an argument with a tag of the
calls in it, where nobody can tell how many parameters are meant. Nothing is repaired.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from lostwax.server.formats.encoding_v32 import (
    ASSISTANT,
    BOS,
    DSML,
    EOS,
    THINK,
    THINK_END,
    USER,
    Mode,
    holds_tag,
    is_name,
)
from lostwax.server.formats.strict_json import read_json

_BLOCK = f"\n\n<{DSML}function_calls>\n"
_BLOCK_END = f"\n</{DSML}function_calls>"
_INVOKE = re.compile(f'<{DSML}invoke name="([^"]+)">\n')
_INVOKE_END = f"\n</{DSML}invoke>"
_PARAMETER = re.compile(f'<{DSML}parameter name="([^"]*)" string="(true|false)">')
_PARAMETER_END = f"</{DSML}parameter>"
_MARKS = (BOS, EOS, USER, ASSISTANT, THINK, THINK_END, DSML)


class ParseError(ValueError):
    """A completion is not in the model's format; the message says where."""


class UnclosedReasoning(ParseError):
    """Thinking began and never ended."""


class StrayMark(ParseError):
    """A mark of the format stands where only text may."""


class MalformedCalls(ParseError):
    """The block of tool calls breaks off or has something else inside."""


class InvalidArgument(ParseError):
    """A parameter stands twice, or is no JSON although it says so."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function's name and its arguments by name."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ParsedMessage:
    """The parts of an assistant's message."""

    reasoning: str = ""
    content: str = ""
    tool_calls: list[ToolCall] = field(default_factory=list[ToolCall])


def parse_completion(text: str, mode: Mode) -> ParsedMessage:
    """The message that a completion holds; ParseError, and nothing else, where it holds none.

    In thinking mode the text begins inside the reasoning, as the prompt ends with `<think>`. One
    end-of-sentence mark at the end may be there or be left out, as servers do.
    """
    rest = text.removesuffix(EOS)
    reasoning = ""
    if mode == "thinking":
        reasoning, closed, rest = rest.partition(THINK_END)
        if not closed:
            raise UnclosedReasoning(f"the reasoning has no {THINK_END}")
    content, opened, block = rest.partition(_BLOCK)
    for part, name in ((reasoning, "reasoning"), (content, "content")):
        require_no_mark(part, name)
    return ParsedMessage(reasoning, content, _calls(block) if opened else [])


def require_no_mark(part: str, name: str) -> None:
    """StrayMark where a part of a message, of this name, holds a mark of the format."""
    for mark in _MARKS:
        if mark in part:
            raise StrayMark(f"{mark!r} stands in the {name} at {part.index(mark)}")


def _calls(block: str) -> list[ToolCall]:
    calls: list[ToolCall] = []
    at = 0
    while True:
        call, at = _call(block, at)
        calls.append(call)
        if block.startswith(_BLOCK_END, at):
            break
        if not block.startswith("\n", at):
            raise MalformedCalls(f"neither a call nor the end of the calls: {_near(block, at)}")
        at += 1
    if block[at + len(_BLOCK_END) :]:
        raise MalformedCalls(f"text follows the calls: {_near(block, at + len(_BLOCK_END))}")
    return calls


def _call(block: str, at: int) -> tuple[ToolCall, int]:
    invoke = _INVOKE.match(block, at)
    if invoke is None or not is_name(invoke[1]):
        raise MalformedCalls(f"no call begins here: {_near(block, at)}")
    name, at = invoke[1], invoke.end()
    arguments: dict[str, Any] = {}
    while not block.startswith(_INVOKE_END, at):
        if arguments:  # the line break before the first one belongs to the call's head
            if not block.startswith("\n", at):
                raise MalformedCalls(f"no line break after a parameter: {_near(block, at)}")
            at += 1
        key, value, at = _parameter(block, at, name)
        if key in arguments:
            raise InvalidArgument(f"parameter {key!r} of {name!r} stands twice")
        arguments[key] = value
    return ToolCall(name, arguments), at + len(_INVOKE_END)


def _parameter(block: str, at: int, call: str) -> tuple[str, Any, int]:
    head = _PARAMETER.match(block, at)
    end = block.find(_PARAMETER_END, at)
    if head is None or end < head.end() or not is_name(head[1]):
        raise MalformedCalls(f"no whole parameter of {call!r} begins here: {_near(block, at)}")
    raw = block[head.end() : end]
    if holds_tag(raw):
        raise StrayMark(f"a tag of the calls stands in parameter {head[1]!r} of {call!r}")
    value = raw if head[2] == "true" else _json(raw, f"parameter {head[1]!r} of {call!r}")
    return head[1], value, end + len(_PARAMETER_END)


def _json(text: str, what: str) -> Any:
    try:
        return read_json(text)
    except ValueError as error:
        raise InvalidArgument(f"{what} is no JSON: {error}") from error


def _near(block: str, at: int) -> str:
    return repr(block[at : at + 40]) if at < len(block) else "the text ends"
