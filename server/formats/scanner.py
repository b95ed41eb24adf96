"""Reads content and tool calls from text that comes in pieces. Knows no format's marks.

A format is a generator that takes text as soon as it is certain what it is, and waits where it is
not. So what was given depends on the text so far and never on where it was cut.

A call that is malformed ends the reading of calls: its text, from its first mark on, and all that
follows is content. Nothing is lost, and the calls before it stand. Arguments that were told of it
end with a bracket that fits nowhere: clients complete what is cut, and would run it.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from typing import TypeVar

from lostwax.server.formats.json_prefix import SPACE, JsonPrefix
from lostwax.server.formats.message import CallDelta, MessageDelta
from lostwax.server.formats.stop import num_pending
from lostwax.server.formats.strict_json import read_json

MAX_SHOWN_CHARS = 80
"""Of a name in `broken`."""
_NO_SPACE = re.compile(f"[^{SPACE}]")

T = TypeVar("T")
Waiting = Generator[None, None, T]
"""Takes text as it comes, then gives a T."""


class Malformed(Exception):
    """What the model wrote is no call; the message says why, in words that no cut changes."""


class CallScanner(ABC):
    """What formats of calls share: blocks of calls in content.

    A subclass gives the marks and reads one call. `bare` takes calls outside a block, too.
    """

    _begin: re.Pattern[str]
    """Any mark of calls, with what belongs to it before it."""
    _begins: tuple[str, ...]
    """Texts of which one stands wherever `_begin` is found."""
    _block: str
    _block_end: str
    _call_begin: str

    def __init__(self, names: frozenset[str] | None, *, bare: bool) -> None:
        self.num_calls = 0
        self.broken = ""
        self._names = names
        self._openings = (self._block, self._call_begin) if bare else (self._block,)
        self._text = ""
        self._at = 0
        self._is_over = False
        self._raw = list[str]()
        """What was taken since the last whole call, or since content."""
        self._space: list[str] | None = None
        """Behind a call: white space that is content only if more content follows."""
        self._num_taken = 0
        self.starts = list[int]()
        self._is_behind_call = True
        self._content = list[str]()
        self._arguments: JsonPrefix | None = None
        """What was told of the call that is open."""
        self._calls = list[tuple[int, str | None, int, list[str]]]()
        """Index, name, characters of content before it, arguments."""
        self._reading = self._read()

    def push(self, text: str, delta: MessageDelta) -> None:
        """Add to `delta` what is certain now."""
        self._text, self._at = self._text[self._at :] + text, 0
        next(self._reading)
        before = len(delta.content)
        delta.content += "".join(self._content)
        for index, name, at, parts in self._calls:
            delta.calls.append(CallDelta(index, name, "".join(parts), before + at))
        self._content.clear()
        self._calls.clear()

    def finish(self, delta: MessageDelta) -> None:
        """Add to `delta` what was held back."""
        self._is_over = True
        self.push("", delta)

    @abstractmethod
    def _call(self) -> Waiting[None]:
        """Reads a call behind its first mark."""

    def _read(self) -> Waiting[None]:
        try:
            while (yield from self._find_mark()):
                yield from self._one_or_block()
        except Malformed as error:
            self.broken = str(error)
            if self._arguments is not None:
                self._add_arguments(self._arguments.misfit())
            self._give(self._raw)
        while True:
            self._give([self._take(len(self._text) - self._at)])
            yield

    def _find_mark(self) -> Waiting[bool]:
        """Gives content up to a mark of calls; False where there is none and the text ends."""
        while True:
            found = self._begin.search(self._text, self._at)
            if found:
                self._say(self._take(found.start() - self._at))
                self._raw, self._space = self._space or [], None
                return True
            rest = len(self._text) - self._at
            held = 0 if self._is_over else num_pending(self._text[self._at :], self._begins)
            self._say(self._take(rest - held))
            self._raw.clear()
            if self._is_over:
                return False
            yield

    def _say(self, text: str) -> None:
        if self._space is None:
            self._give([text])
            return
        found = _NO_SPACE.search(text)
        self._space.append(text)
        if found:
            self._give(self._space)
            self._space = None

    def _give(self, texts: list[str]) -> None:
        """Tells of content: what was taken last."""
        count = sum(map(len, texts))
        if count and self._is_behind_call:
            self._is_behind_call = False
            self.starts.append(self._num_taken - count)
        self._content += texts

    def _one_or_block(self) -> Waiting[None]:
        if self._text.startswith("\n\n", self._at):
            self._take(2)
        opening = yield from self._one_of("no call begins with this mark", *self._openings)
        if opening == self._call_begin:
            yield from self._call()
        else:
            yield from self._calls_of_block()
        self._raw, self._space = [], []

    def _calls_of_block(self) -> Waiting[None]:
        """A block that the answer ends in is read as if it were closed behind its last call."""
        before = self.num_calls
        while True:
            yield from self._skip_space()
            has_calls = self.num_calls > before
            if self._is_over and has_calls:
                return
            what = "a block of calls holds something else"
            mark = yield from self._one_of(what, self._call_begin, self._block_end)
            if mark == self._block_end:
                if not has_calls:
                    raise Malformed("a block of calls holds none")
                return
            yield from self._call()

    def _begin_call(self, name: str) -> None:
        """Tells of a call. Raises Malformed for a tool that was not offered."""
        if self._names is not None and name not in self._names:
            raise Malformed(f"the tool {self._shown(name)} was not offered")
        self._calls.append((self.num_calls, name, sum(map(len, self._content)), []))
        self._arguments = JsonPrefix()
        self._is_behind_call = True

    def _add_arguments(self, text: str) -> None:
        if not text:
            return
        if not (self._calls and self._calls[-1][0] == self.num_calls):
            self._calls.append((self.num_calls, None, 0, []))
        self._calls[-1][-1].append(text)
        if self._arguments is not None:
            self._arguments.push(text)

    def _end_call(self, arguments: str) -> None:
        """Ends a call, with the last of its arguments."""
        self._add_arguments(arguments)
        self._arguments = None
        self.num_calls += 1
        self._raw = []

    def _object(self, wrong: str) -> Waiting[None]:
        """Gives a JSON object, behind its first brace, which was taken, and but for its last one,
        which only the end of the call may bring."""
        json_text, parts = JsonPrefix(), ["{"]
        json_text.push("{")
        self._add_arguments("{")
        while (closed := json_text.closed_at) is None:
            if self._at == len(self._text):
                yield from self._wait()
            end = json_text.push(self._text, self._at)
            closed = json_text.closed_at
            parts.append(self._take((closed or end) - self._at))
            self._add_arguments(parts[-1] if closed is None else parts[-1][:-1])
            if closed is None and self._at < len(self._text):
                raise Malformed(wrong)
        self._require_json("".join(parts), wrong)

    def _require_json(self, text: str, wrong: str) -> None:
        try:
            read_json(text)
        except ValueError as error:
            raise Malformed(f"{wrong}: {error}") from error

    def _one_of(self, otherwise: str, *options: str) -> Waiting[str]:
        """Takes the one that is there. Raises Malformed as soon as it can be none."""
        while True:
            for option in options:
                if self._text.startswith(option, self._at):
                    return self._take(len(option))
            rest = self._text[self._at : self._at + max(map(len, options))]
            if not any(option.startswith(rest) for option in options):
                raise Malformed(otherwise)
            yield from self._wait()

    def _until(self, stop: re.Pattern[str], held: tuple[str, ...] = ()) -> Waiting[str]:
        """Takes and gives what stands before `stop`, which is none of it."""
        parts = list[str]()
        yield from self._stream(stop, held, parts.append)
        return "".join(parts)

    def _stream(
        self, stop: re.Pattern[str], held: tuple[str, ...], give: Callable[[str], object]
    ) -> Waiting[None]:
        """Takes what stands before `stop` and gives it as it comes, but for the start of `held`."""
        while True:
            found = stop.search(self._text, self._at)
            end = found.start() if found else len(self._text)
            if not found:
                end -= num_pending(self._text[self._at :], held)
            if end > self._at:
                give(self._take(end - self._at))
            if found:
                return
            yield from self._wait()

    def _skip_space(self) -> Waiting[None]:
        while True:
            found = _NO_SPACE.search(self._text, self._at)
            self._take((found.start() if found else len(self._text)) - self._at)
            if found or self._is_over:
                return
            yield

    def _wait(self) -> Waiting[None]:
        if self._is_over:
            raise Malformed("the answer ends inside a call")
        yield

    def _take(self, count: int) -> str:
        text = self._text[self._at : self._at + count]
        self._at += count
        self._num_taken += count
        self._raw.append(text)
        return text

    @staticmethod
    def _shown(name: str) -> str:
        return repr(name[:MAX_SHOWN_CHARS])


def in_string(text: str) -> str:
    """The text as it stands in a JSON string; parts of a text concatenate."""
    return json.dumps(text, ensure_ascii=False)[1:-1]
