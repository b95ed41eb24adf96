"""Chooses who reads an answer by the name of its format. Knows no marks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

from lostwax.server.formats.dsml_calls import DsmlCalls
from lostwax.server.formats.encoders import Format
from lostwax.server.formats.message import MessageDelta, MessageReader
from lostwax.server.formats.reasoning import ReasoningSplitter
from lostwax.server.formats.v31_calls import V31Calls

Tools = Sequence[Mapping[str, Any]]


class CallReader(Protocol):
    """Reads the text behind the reasoning: content and calls, as a MessageReader does."""

    num_calls: int
    broken: str
    starts: list[int]
    """As a MessageReader's, in the text that it reads."""

    def push(self, text: str, delta: MessageDelta) -> None:
        """Add to `delta` what is certain now."""
        ...

    def finish(self, delta: MessageDelta) -> None:
        """Add to `delta` what was held back."""
        ...


class NoCalls:
    """The text behind the reasoning is content, whatever it holds."""

    num_calls = 0
    broken = ""

    def __init__(self) -> None:
        self.starts = [0]

    def push(self, text: str, delta: MessageDelta) -> None:
        """All of it is content."""
        delta.content += text

    def finish(self, delta: MessageDelta) -> None:
        """Nothing was held back."""


class NoReasoning:
    """All of the text is behind the reasoning, marks and all."""

    in_reasoning = False
    reasoning_end: int | None = None

    def push(self, text: str) -> tuple[str, str]:
        """(reasoning, the rest)"""
        return "", text

    def flush(self) -> tuple[str, str]:
        """Nothing was held back."""
        return "", ""


def reader_of(
    format: Format,
    *,
    thinks: bool,
    tools: Tools | None = None,
    coerce: bool = False,
    bare: bool = True,
    splits_reasoning: bool = True,
) -> MessageReader:
    """Who reads one answer in this format. Raises ValueError for what a format does not have.

    `thinks` says that the prompt ended inside reasoning. With `tools` (functions as OpenAI has
    them, wrapped or bare) a call of another function is text; None takes any name, and an answer
    to a request that offers no tools is best read as "none". `coerce` (V3.2 only) reads arguments
    by the types of the tools' schemas and not by what the model says of them; without `bare`, a
    call outside a block is text. With neither reasoning nor calls to part, all is content.
    """
    if coerce and format != "deepseekv32":
        raise ValueError(f"arguments have types of their own in {format}: nothing to coerce")
    functions = [_function(tool) for tool in tools or ()]
    names = None if tools is None else frozenset(str(each.get("name")) for each in functions)
    calls: CallReader = NoCalls()
    if format == "deepseekv32":
        schemas = {str(each.get("name")): _schema(each) for each in functions}
        calls = DsmlCalls(names, bare=bare, schemas=schemas if coerce else None)
    elif format == "deepseekv31":
        calls = V31Calls(names, bare=bare)
    return _Reader(ReasoningSplitter(thinks) if splits_reasoning else NoReasoning(), calls)


def _function(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    function: Any = tool.get("function", tool)
    return cast("Mapping[str, Any]", function) if isinstance(function, Mapping) else {}


def _schema(function: Mapping[str, Any]) -> Mapping[str, Any]:
    schema: Any = function.get("parameters")
    return cast("Mapping[str, Any]", schema) if isinstance(schema, Mapping) else {}


class _Reader:
    """Reasoning first, calls in what is behind it."""

    def __init__(self, reasoning: ReasoningSplitter | NoReasoning, calls: CallReader) -> None:
        self._reasoning = reasoning
        self._calls = calls

    @property
    def in_reasoning(self) -> bool:
        return self._reasoning.in_reasoning

    @property
    def reasoning_end(self) -> int | None:
        return self._reasoning.reasoning_end

    @property
    def starts(self) -> list[int]:
        before = self.reasoning_end or 0
        return [before + start for start in self._calls.starts]

    @property
    def num_calls(self) -> int:
        return self._calls.num_calls

    @property
    def broken(self) -> str:
        return self._calls.broken

    def push(self, text: str) -> MessageDelta:
        reasoning, rest = self._reasoning.push(text)
        delta = MessageDelta(reasoning)
        self._calls.push(rest, delta)
        return delta

    def finish(self) -> MessageDelta:
        reasoning, rest = self._reasoning.flush()
        delta = MessageDelta(reasoning)
        self._calls.push(rest, delta)
        self._calls.finish(delta)
        return delta
