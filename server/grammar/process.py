"""The process that follows one grammar. It is forked from `host.py`, and hears of its work over a
socket. Knows no model.

It cannot take more than it is given: an alarm is set before any work, and the kernel ends it when
that rings; so it does where it wants more memory.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import socket
from pathlib import Path

import llguidance
import msgspec

from lostwax.server.grammar.allowance import Allowance
from lostwax.server.grammar.compile_grammar import compile_grammar
from lostwax.server.grammar.follower import CannotGoOn, Follower, Rows
from lostwax.server.grammar.grammar import BadGrammar
from lostwax.server.grammar.messages import (
    MAX_FRAME_BYTES,
    Ask,
    Close,
    Compile,
    Compiled,
    Made,
    Masks,
    Open,
    Refused,
    decode_request,
    encode,
)
from lostwax.server.grammar.times import COMPILE_S
from lostwax.server.grammar.trial import try_grammar
from lostwax.server.grammar.vocabulary import Vocabulary

MORE_BYTES = 512 << 20
"""Memory beside what is shared with all."""
COUNT_AFTER_S = 0.05
"""Without a word before the memory is counted, which takes milliseconds where it is much: a step
that came meanwhile would wait for its masks so much longer."""


def follow(engine: socket.socket, vocabulary: Vocabulary, rows: Rows) -> None:
    """Serve an engine until it closes the socket."""
    _bound_memory()
    pid = os.getpid()  # and what ends this process surely
    socket.send_fds(engine, [str(pid).encode()], [os.pidfd_open(pid)])
    request = decode_request(engine.recv(MAX_FRAME_BYTES))
    assert isinstance(request, Compile)
    signal.setitimer(signal.ITIMER_REAL, COMPILE_S)
    try:
        matcher = compile_grammar(request.grammar, vocabulary)
        try_grammar(matcher.deep_copy(), vocabulary)
    except BadGrammar as error:
        engine.send(encode(Refused(str(error))))
        return
    signal.setitimer(signal.ITIMER_REAL, 0)
    engine.send(encode(Compiled(_own_bytes())))
    _Answers(matcher, vocabulary, rows).serve(engine)


class _Answers:
    """All answers that follow the grammar."""

    def __init__(self, matcher: llguidance.LLMatcher, vocabulary: Vocabulary, rows: Rows) -> None:
        self._matcher = matcher
        self._vocabulary = vocabulary
        self._rows = rows
        self._allowance = Allowance()
        self._open: dict[int, Follower] = {}
        self._must_count = False

    def serve(self, engine: socket.socket) -> None:
        """Until the socket is closed."""
        while frame := self._next(engine):
            match decode_request(frame):
                case Close(numbers=numbers):
                    for number in numbers:
                        del self._open[number]
                    self._must_count = True  # automata grow as they are followed
                case Masks(asks=asks):
                    engine.send(encode(self._made(asks)))
                case Compile():
                    raise msgspec.ValidationError("a process follows one grammar")

    def _next(self, engine: socket.socket) -> bytes:
        """The next frame; where none comes soon, and no answer is open, what is held is told."""
        if self._must_count and not self._open:
            heard, _, _ = select.select([engine], [], [], COUNT_AFTER_S)
            if not heard:
                self._must_count = False
                engine.send(encode(Compiled(_own_bytes())))
        return engine.recv(MAX_FRAME_BYTES)

    def _made(self, asks: list[Ask]) -> Made:
        faults: dict[int, str] = {}
        for ask in asks:
            begins = ask.opens is not None
            with self._allowance.spending(1 + len(ask.drafts) + begins):
                try:
                    if ask.opens is not None:
                        self._begin(ask.number, ask.opens)
                    self._open[ask.number].take(ask.tokens)
                    self._open[ask.number].masks(ask.drafts, self._rows, ask.row)
                except CannotGoOn as error:
                    faults[ask.number] = str(error)
        return Made(faults)

    def _begin(self, number: int, opens: Open) -> None:
        own = self._matcher.deep_copy()
        self._open[number] = Follower(own, self._vocabulary, opens.ends, opens.after)


def _bound_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MORE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # ending by an alarm is no crash to look into


def _own_bytes() -> int:
    """Memory that is shared with nobody."""
    text = Path("/proc/self/smaps_rollup").read_text()
    return 1024 * sum(int(line.split()[1]) for line in text.splitlines() if "Private_" in line)
