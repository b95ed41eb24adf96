"""Chooses who reads an answer by the name of its format. Knows no marks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from lostwax.server.formats.message import MessageDelta, MessageReader
from lostwax.server.formats.reasoning import ReasoningSplitter

Format = Literal["deepseekv32", "deepseekv31", "none"]
Tools = Sequence[Mapping[str, Any]]


class CallReader(Protocol):
    """Reads the text behind the reasoning: content and calls, as a MessageReader does."""

    num_calls: int
    broken: str

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

    def push(self, text: str, delta: MessageDelta) -> None:
        """All of it is content."""
        delta.content += text

    def finish(self, delta: MessageDelta) -> None:
        """Nothing was held back."""


def reader_of(
    format: Format, *, thinks: bool, tools: Tools | None = None, coerce: bool = False
) -> MessageReader:
    """Who reads one answer in this format.

    `thinks` says that the prompt ended inside reasoning. With `tools` (functions as OpenAI has
    them, wrapped or bare) a call of another function is text; None takes any name, and an answer
    to a request that offers no tools is best read as "none". `coerce`: see `docs/tools.md`.
    """
    return _Reader(ReasoningSplitter(thinks), NoCalls())


class _Reader:
    """Reasoning first, calls in what is behind it."""

    def __init__(self, reasoning: ReasoningSplitter, calls: CallReader) -> None:
        self._reasoning = reasoning
        self._calls = calls

    @property
    def in_reasoning(self) -> bool:
        return self._reasoning.in_reasoning

    @property
    def reasoning_end(self) -> int | None:
        return self._reasoning.reasoning_end

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
