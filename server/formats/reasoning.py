"""Parts an answer into reasoning and content, wherever its text is split. Knows no tokens.

Rules, as SGLang's for this model: reasoning ends at the first `</think>`; a `<think>` that the
model repeats at its start is left out, and opens reasoning where the prompt did not; whitespace is
kept; an answer that ends before `</think>` is reasoning alone. Outside reasoning both marks are
text: an answer may speak of them, and hiding them would change it.
"""

from __future__ import annotations

from typing import Literal

from lostwax.server.formats.encoding_v32 import THINK, THINK_END
from lostwax.server.formats.stop import num_pending

Part = tuple[str, str]
"""(reasoning, content)"""


class ReasoningSplitter:
    """Takes text in pieces; `opened` says whether the prompt ended inside reasoning."""

    def __init__(self, opened: bool) -> None:
        self._opened = opened
        self._state: Literal["start", "reasoning", "content"] = "start"
        self._held = ""
        self._num_passed = 0
        self.reasoning_end: int | None = None
        """Where, in characters of the whole text, content starts; None without a `</think>`."""

    @property
    def in_reasoning(self) -> bool:
        """Whether what comes next is reasoning."""
        return self._opened if self._state == "start" else self._state == "reasoning"

    def push(self, text: str) -> Part:
        """What is safe to show; the start of a mark is held back."""
        self._held += text
        if self._state == "start" and not self._begin():
            return "", ""
        if self._state == "content":
            return "", self._release(len(self._held))
        at = self._held.find(THINK_END)
        if at < 0:
            return self._release(len(self._held) - num_pending(self._held, [THINK_END])), ""
        reasoning = self._release(at)
        self._release(len(THINK_END))
        self._state = "content"
        self.reasoning_end = self._num_passed
        return reasoning, self._release(len(self._held))

    def flush(self) -> Part:
        """What was held back, when nothing follows."""
        text = self._release(len(self._held))
        return (text, "") if self.in_reasoning else ("", text)

    def _begin(self) -> bool:
        """Whether enough text has come to know how the answer starts."""
        if self._held.startswith(THINK):
            self._release(len(THINK))
            self._state = "reasoning"
        elif not THINK.startswith(self._held):
            self._state = "reasoning" if self._opened else "content"
        return self._state != "start"

    def _release(self, count: int) -> str:
        text, self._held = self._held[:count], self._held[count:]
        self._num_passed += count
        return text
