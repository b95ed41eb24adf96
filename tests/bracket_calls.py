"""Tool calls as `[[name|{"a": 1}]]`: a stand-in for a model's format, which others test.

As strict as `MessageReader` says: what it gives depends on the text alone, a call of an unknown
function or one that breaks off is content.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from lostwax.server.formats.message import CallDelta, MessageDelta
from lostwax.server.formats.reasoning import ReasoningSplitter
from lostwax.server.formats.stop import num_pending

OPEN, BAR, CLOSE = "[[", "|", "]]"


class BracketReader:
    """Reads one answer."""

    def __init__(self, thinks: bool, tools: Sequence[Mapping[str, Any]] | None) -> None:
        self._reasoning = ReasoningSplitter(thinks)
        functions = [tool.get("function", tool) for tool in tools or ()]
        self._names = {function["name"] for function in functions}
        self._held = ""
        self._call: str | None = None
        self.num_calls = 0
        self.broken = ""

    @property
    def in_reasoning(self) -> bool:
        return self._reasoning.in_reasoning

    @property
    def starts(self) -> Sequence[int]:
        raise NotImplementedError("tests of scored texts read the model's own format")

    @property
    def reasoning_end(self) -> int | None:
        return self._reasoning.reasoning_end

    def push(self, text: str) -> MessageDelta:
        reasoning, rest = self._reasoning.push(text)
        delta = MessageDelta(reasoning)
        self._held += rest
        while self._advance(delta):
            pass
        return delta

    def finish(self) -> MessageDelta:
        reasoning, rest = self._reasoning.flush()
        self._held += rest
        delta = MessageDelta(reasoning, (self._call or "") + self._held)
        if self._call is not None:
            self.broken = "a call breaks off"
        return delta

    def _advance(self, delta: MessageDelta) -> bool:
        if self.broken:
            delta.content, self._held = delta.content + self._held, ""
            return False
        if self._call is None:
            at = self._held.find(OPEN)
            if at < 0:
                at = len(self._held) - num_pending(self._held, [OPEN])
                delta.content, self._held = delta.content + self._held[:at], self._held[at:]
                return False
            name, found, rest = self._held[at + 2 :].partition(BAR)
            if not found:
                return False
            delta.content += self._held[:at]
            if name not in self._names:
                self.broken, self._held = f"no tool {name}", self._held[at:]
                return True
            self._call, self._held = f"[[{name}|", rest
            delta.calls.append(CallDelta(self.num_calls, name, at=len(delta.content)))
        at = self._held.find(CLOSE)
        end = at
        if at < 0:  # the last character comes with the end of the call
            end = max(len(self._held) - num_pending(self._held, [CLOSE]) - 1, 0)
        if end:
            delta.calls.append(
                CallDelta(self.num_calls, None, self._held[:end], len(delta.content))
            )
        self._call, self._held = self._call + self._held[:end], self._held[end:]
        if at < 0:
            return False
        json.loads(self._call.partition(BAR)[2])  # a test writes whole arguments
        self._held, self._call = self._held[2:], None
        self.num_calls += 1
        return True


def bracket_reader_of(
    format: str,
    *,
    thinks: bool,
    tools: Sequence[Mapping[str, Any]] | None = None,
    splits_reasoning: bool = True,
) -> BracketReader:
    """In the place of `reader_of`."""
    assert splits_reasoning
    return BracketReader(thinks, tools if format != "none" else ())
