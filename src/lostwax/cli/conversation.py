"""A chat with its history. Knows neither server nor terminal.

What the user saw of an answer stays in the history, also where it was stopped, so that the next
question may speak of it. A turn without any answer is forgotten, and so is one that failed: the
question can be asked again.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from typing import Any

from lostwax.cli.chat_client import Delta, Message

Ask = Callable[[Sequence[Message], Mapping[str, Any]], Generator[Delta, None, None]]


class Conversation:
    """The turns so far. `options` go with each request; `thinking` None is as the server has it."""

    def __init__(
        self,
        ask: Ask,
        *,
        system: str | None = None,
        thinking: bool | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self._ask = ask
        self._system: list[Message] = [{"role": "system", "content": system}] if system else []
        self._options = dict(options or {})
        self.thinking = thinking
        self.turns: list[Message] = []

    def clear(self) -> None:
        """Forget all turns."""
        self.turns.clear()

    def say(self, text: str, show: Callable[[Delta], None]) -> str | None:
        """Ask, show the answer as it comes, and return why it ended.

        KeyboardInterrupt stops the answer and is passed on, after the request was ended.
        """
        question: Message = {"role": "user", "content": text}
        answer, finish = "", None
        try:
            messages = [*self._system, *self.turns, question]
            with closing(self._ask(messages, self._options | self._template())) as deltas:
                for delta in deltas:
                    answer += delta.content
                    finish = delta.finish or finish
                    show(delta)
        except KeyboardInterrupt:
            self._remember(question, answer)
            raise
        self._remember(question, answer)
        return finish

    def _template(self) -> dict[str, Any]:
        # Left out unless it was chosen: other servers may not know it.
        if self.thinking is None:
            return {}
        return {"chat_template_kwargs": {"thinking": self.thinking}}

    def _remember(self, question: Message, answer: str) -> None:
        if answer:
            self.turns += [question, {"role": "assistant", "content": answer}]
