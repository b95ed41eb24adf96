"""The growing message of a chat: reasoning, content and tool calls, of what the engine gives.

Knows no request and no form of an answer.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from lostwax.server.engine.messages import Output
from lostwax.server.formats.encoding_v32 import THINK, THINK_END
from lostwax.server.formats.growing_text import grow
from lostwax.server.formats.message import CallDelta, MessageDelta
from lostwax.server.formats.readers import reader_of
from lostwax.server.gateway.prepared import AnswerOptions, ChatTurn
from lostwax.server.gateway.tokenizer import Codec
from lostwax.server.gateway.transcript import Scored, Transcript


@dataclass(slots=True)
class ChatDelta:
    """What one output adds to a message."""

    reasoning: str = ""
    content: str = ""
    calls: list[CallDelta] = field(default_factory=list[CallDelta])
    scored: list[Scored] = field(default_factory=list[Scored])
    token_ids: list[int] = field(default_factory=list[int])
    finish: str | None = None

    def extend(self, other: ChatDelta) -> None:
        """Append what follows."""
        grow(self, "reasoning", other.reasoning)
        before = len(self.content)
        grow(self, "content", other.content)
        for call in other.calls:
            if self.calls and self.calls[-1].index == call.index:
                grow(self.calls[-1], "arguments", call.arguments)
            else:
                call.at += before
                self.calls.append(call)
        self.scored += other.scored
        self.token_ids += other.token_ids
        self.finish = other.finish or self.finish


class ChatReader:
    """The growing message. Stop strings hold in reasoning and in calls too, as in SGLang."""

    def __init__(self, options: AnswerOptions, turn: ChatTurn, codec: Codec) -> None:
        self._transcript = Transcript(
            [],
            codec,
            stops=options.stops,
            with_scores=options.scored,
            silent=turn.silent,
        )
        self._message = reader_of(
            turn.format,
            thinks=turn.thinks,
            tools=[{"name": name} for name in turn.tools],
            splits_reasoning=turn.splits_reasoning,
        )
        self._turn = turn
        self._is_cut = False
        self._has_opened = turn.thinks
        self._has_closed = False
        self._call_ids: list[str] = []

    @property
    def finished(self) -> bool:
        """Whether nothing can follow."""
        return self._is_cut or self._transcript.finished

    @property
    def num_output(self) -> int:
        """Tokens generated so far."""
        return self._transcript.num_output

    @property
    def in_reasoning(self) -> bool:
        """Whether content has not begun."""
        return self._message.in_reasoning and not self._turn.joined

    @property
    def num_reasoning(self) -> int:
        """Tokens of the reasoning, its closing mark included."""
        if self._message.in_reasoning:
            return self.num_output
        end = self._message.reasoning_end or 0
        return sum(offset < end for offset in self._transcript.offsets)

    @property
    def num_calls(self) -> int:
        """Calls that ended whole; of a malformed one behind them the content has the text."""
        return min(self._message.num_calls, 1) if self._turn.one_call else self._message.num_calls

    @property
    def starts(self) -> Sequence[int]:
        """Where each text of the content that calls part starts in the answer's text."""
        return self._message.starts

    @property
    def stop(self) -> str | None:
        """The stop string that ended the message."""
        return self._transcript.stop

    def call_id(self, index: int) -> str:
        """The id of a call, made up when it is first asked for."""
        while len(self._call_ids) <= index:
            self._call_ids.append(f"call_{uuid.uuid4().hex[:24]}")
        return self._call_ids[index]

    def opening(self) -> Iterator[ChatDelta]:
        """Nothing comes before the first output."""
        return iter(())

    def feed(self, output: Output) -> ChatDelta:
        """What an output adds."""
        delta = self._transcript.feed(output)
        message = self._message.push(delta.text)
        finish = delta.finish
        if finish is not None:
            message.extend(self._message.finish())
        if self._turn.tools and self._message.num_calls:
            finish = self._finish(finish, delta.token_ids)
            if self._is_cut:
                self._cut(message)
        if self._turn.joined:
            self._join(message)
        return ChatDelta(
            message.reasoning,
            message.content,
            message.calls,
            delta.scored,
            delta.token_ids,
            finish,
        )

    def _finish(self, finish: str | None, token_ids: list[int]) -> str | None:
        """Why a message with a whole call ends: for the call only where that ended the turn."""
        if self._turn.one_call:
            self._is_cut = True
            return "tool_calls"
        is_end = bool(token_ids) and token_ids[-1] in self._turn.ends
        return "tool_calls" if finish == "stop" and is_end else finish

    @staticmethod
    def _cut(message: MessageDelta) -> None:
        """Leave out what stands behind the first call, which has just ended."""
        message.calls = [call for call in message.calls if call.index == 0]
        message.content = message.content[: message.calls[-1].at] if message.calls else ""

    def _join(self, message: MessageDelta) -> None:
        """Reasoning as part of the content, with the marks that are not the prompt's."""
        has_ended = self._message.reasoning_end is not None
        text = message.reasoning
        if not self._has_opened and (self._message.in_reasoning or has_ended):
            self._has_opened = True
            text = THINK + text
        if not self._has_closed and has_ended:
            self._has_closed = True
            text += THINK_END
        for call in message.calls:
            call.at += len(text)
        message.reasoning, message.content = "", text + message.content
