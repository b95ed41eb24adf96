"""An assistant's message as it grows: its parts, and what reads them. Knows no format."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from lostwax.server.formats.growing_text import grow


@dataclass(slots=True)
class CallDelta:
    """What is added to one tool call.

    `name` stands in the first delta of a call and in no other. The `arguments` of a call's deltas
    concatenate to the text of a JSON object, which is whole only when the call has ended, and which
    nobody can complete where the call is malformed. `at` is
    how many characters of its message's (or delta's) content stand before its first part.
    """

    index: int
    name: str | None = None
    arguments: str = ""
    at: int = 0


@dataclass(slots=True)
class MessageDelta:
    """What some text adds to a message. A whole message is the sum of its deltas."""

    reasoning: str = ""
    content: str = ""
    calls: list[CallDelta] = field(default_factory=list[CallDelta])

    def extend(self, other: MessageDelta) -> None:
        """Append what follows; the deltas of one call become one."""
        grow(self, "reasoning", other.reasoning)
        before = len(self.content)
        grow(self, "content", other.content)
        for call in other.calls:
            if not (self.calls and self.calls[-1].index == call.index):
                self.calls.append(CallDelta(call.index, call.name, at=before + call.at))
            grow(self.calls[-1], "arguments", call.arguments)

    def __bool__(self) -> bool:
        return bool(self.reasoning or self.content or self.calls)


def in_order(content: str, calls: Sequence[CallDelta]) -> Iterator[str | CallDelta]:
    """The parts of a delta, as the answer had them: texts, none of which is empty, and calls."""
    told = 0
    for call in calls:
        if call.at > told:
            yield content[told : call.at]
            told = call.at
        yield call
    if told < len(content):
        yield content[told:] if told else content


class MessageReader(Protocol):
    """Reads an answer's text in pieces. What it has given depends on the text so far, never on
    where that was cut.

    Calls are numbered from 0. Those below `num_calls` have ended whole, each with the last of its
    arguments in the delta that told so. A call that begins and turns out to be malformed has the
    index `num_calls`: its deltas may have been given, and its text is given as content, with all
    that follows, so there is no call behind it.
    """

    @property
    def in_reasoning(self) -> bool:
        """Whether what comes next is reasoning."""
        ...

    @property
    def reasoning_end(self) -> int | None:
        """Where content starts, in characters of the whole text; None while reasoning is open or
        where there was none."""
        ...

    @property
    def starts(self) -> Sequence[int]:
        """Where each text of the content that calls part starts, in characters of the whole
        text."""
        ...

    @property
    def num_calls(self) -> int:
        """Calls that ended whole."""
        ...

    @property
    def broken(self) -> str:
        """What was malformed, in words; "" if nothing."""
        ...

    def push(self, text: str) -> MessageDelta:
        """What is certain of the message now; what may yet become a mark is held back."""
        ...

    def finish(self) -> MessageDelta:
        """What was held back, when nothing follows."""
        ...


def whole_message(reader: MessageReader, text: str) -> MessageDelta:
    """The message of a whole text, with the calls that ended whole and no other."""
    message = reader.push(text)
    message.extend(reader.finish())
    del message.calls[reader.num_calls :]
    return message
