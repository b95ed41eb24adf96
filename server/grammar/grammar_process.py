"""The engine's end of a process that follows a grammar. Knows no request and no host.

Nothing here waits: who hears late is told by `Grammars`. Between two masks at most two frames are
on their way, however many answers begin and end: an answer is opened by the first ask for it, and
those that are over are told together. So a queue that is full is that of one who hears nothing.
"""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Literal

import msgspec

from lostwax.server.grammar.counts import Reason
from lostwax.server.grammar.grammar import Grammar
from lostwax.server.grammar.messages import (
    MAX_ASKS,
    MAX_FRAME_BYTES,
    Ask,
    Close,
    Compile,
    Compiled,
    Made,
    Masks,
    Open,
    Refused,
    Request,
    decode_reply,
    encode,
)
from lostwax.server.grammar.times import COMPILE_S
from lostwax.server.told_fault import Fault, ToldFault

ENDED = (
    "the process that follows its grammar was ended: that took too much time or memory, or somebody"
    " killed it; make the grammar simpler, or ask again"
)
TOO_SLOW = (
    f"it cannot be compiled and tried within {COMPILE_S:g} s and the memory that there is; make it"
    " smaller"
)
FAILED = "the process that follows its grammar failed; the server's log says why"
NO_HOST = "the process that compiles grammars did not start; the server's log says why"
TOO_MANY = "too many grammars wait to be compiled; ask again later"
_OURS = (ENDED, FAILED, NO_HOST)
"""Refusals that no grammar is at fault for, as far as is known."""
Log = Callable[[str, BaseException], object]
"""Is told what happened, and why."""
Code = Literal["invalid_grammar", "grammar_failed", "too_many_grammars"]
NICENESS = 10
MAX_ASKED = 2
"""Times that a host is asked to fork for a grammar: it may be killed meanwhile."""
_ENDS_WITHIN_MS = 1000


class GrammarProcess:
    """A grammar, on its way to be followed or there. `users` count who needs it; `log` is told of
    a fault that its process met."""

    def __init__(self, grammar: Grammar, log: Log) -> None:
        self.grammar = grammar
        self._log = log
        self.users = 0
        self.num_bytes = 0
        self.is_ready = False
        self.refusal: str | None = None
        """Why it is not followed, or no more."""
        self.forked_s: float | None = None
        """When its process began."""
        self._must_count = False
        """Whether it was told that nobody needs it any more, and is to say what it holds."""
        self._counts_since_s: float | None = None
        self.made: Made | None = None
        """What it made for the last step that asked, once all is there."""
        self._socket: socket.socket | None = None
        self.pidfd: int | None = None
        """What it is ended by, once it has begun."""
        self._pid = 0
        self._is_nice = False
        self._num_opened = 0
        self._unopened: dict[int, Open] = {}
        """Answers that it has not heard of, by number."""
        self._closed: list[int] = []
        """Those that are over, which it has not heard."""
        self._asks: list[Ask] = []
        """Of the step, which it has not heard."""
        self._faults: dict[int, str] = {}
        """Of the step's asks so far."""
        self._num_asked = 0

    @property
    def has_begun(self) -> bool:
        """Whether a process was asked for, and has not ended."""
        return self._socket is not None

    @property
    def is_counting(self) -> bool:
        """Whether it is yet to say what it holds. One that has ended never is: it says nothing, and
        has no socket to be waited for."""
        return self._must_count and self.refusal is None

    @property
    def refusal_code(self) -> Code:
        """Whose fault it was: the grammar's, as far as is known, if it never was ready."""
        if self.refusal == TOO_MANY:
            return "too_many_grammars"
        return "grammar_failed" if self.refusal in _OURS else "invalid_grammar"

    @property
    def reason(self) -> Reason:
        """Why it is not followed, for who counts such."""
        if self.refusal == TOO_MANY:
            return "too_many"
        if self.refusal == TOO_SLOW:
            return "too_slow"
        return "failed" if self.refusal in _OURS else "invalid"

    def begin(self) -> socket.socket:
        """Ask for a process: the end of the socket that is its own."""
        mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        mine.setblocking(False)
        # The system's own choice is less than a grammar of the greatest size; it takes twice that.
        mine.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MAX_FRAME_BYTES)
        self._socket = mine
        self._num_asked += 1
        self._send(Compile(self.grammar))
        return its

    def fileno(self) -> int:
        """The socket's, to wait for."""
        return -1 if self._socket is None else self._socket.fileno()

    def open(self, ends: tuple[int, ...], after: int | None) -> int:
        """Begin an answer; its number."""
        self._num_opened += 1
        self.users += 1
        self._unopened[self._num_opened] = Open(ends, after)
        return self._num_opened

    def close(self, number: int) -> None:
        """End an answer."""
        if self._unopened.pop(number, None) is None:
            self._closed.append(number)
        self.leave()

    def leave(self) -> None:
        """A user needs it no more."""
        self.users -= 1
        if not self.users and self._closed:  # else the next step's frame tells of them
            self._tell_closed()
            self._must_count, self._counts_since_s = True, None

    def ask(self, asks: Sequence[Ask]) -> None:
        """Want masks for answers of one step: `made` stands when all are there."""
        opens = ((ask, self._unopened.pop(ask.number, None)) for ask in asks)
        self._asks = [msgspec.structs.replace(ask, opens=each) for ask, each in opens]
        self.made, self._faults = None, {}
        self._must_count = False  # it will be, when these answers are over
        self._tell_closed()
        self._ask_some()

    def _ask_some(self) -> None:
        self._send(Masks(self._asks[:MAX_ASKS]))
        del self._asks[:MAX_ASKS]

    def _tell_closed(self) -> None:
        if self._closed:
            self._send(Close(self._closed))
            self._closed = []

    def _send(self, request: Request) -> None:
        """Say something, if it still listens."""
        if self.refusal is not None or self._socket is None:
            return
        try:
            self._socket.send(encode(request))
        except OSError:  # it has ended
            self.end(ENDED)

    def counts_for_s(self, now_s: float) -> float:
        """How long it has been asked what it holds, since this was first looked at."""
        if not self.is_counting:
            return 0.0
        self._counts_since_s = self._counts_since_s or now_s
        return now_s - self._counts_since_s

    def hear(self, now_s: float) -> None:
        """Take in what it has said by now."""
        while self.refusal is None and self._socket is not None:
            try:
                frame, files, _, _ = socket.recv_fds(self._socket, MAX_FRAME_BYTES, 1)
            except BlockingIOError:
                return
            except ConnectionResetError:  # told once, and first, where it ended before it had read
                continue  # all: what it said is behind that
            except OSError:
                frame, files = b"", list[int]()
            if files:
                self.pidfd, self.forked_s, self._pid = files[0], now_s, int(frame)
            elif not frame:
                self._has_ended()
            else:
                self._take(frame)

    def _has_ended(self) -> None:
        """It closed its end of the socket, and has not said why."""
        if self.forked_s is None and self._num_asked < MAX_ASKED and self._socket is not None:
            self._socket.close()  # the host has ended, which is not the grammar's fault
            self._socket = None
        else:
            has_begun = self.forked_s is not None
            self.end(ENDED if self.is_ready else TOO_SLOW if has_begun else NO_HOST)

    def _take(self, frame: bytes) -> None:
        match decode_reply(frame):
            case Compiled(num_bytes=num_bytes):
                self.is_ready, self.num_bytes, self._must_count = True, num_bytes, False
            case Refused(message=message):
                self.end(message)
            case Fault() as fault:
                self._log("a process that follows a grammar failed", ToldFault(fault))
                self.end(NO_HOST if self.forked_s is None else FAILED)
            case Made(faults=faults):
                self._faults |= faults
                if self._asks:
                    self._ask_some()
                else:
                    self.made = Made(self._faults)

    def give_way(self) -> None:
        """Let everybody else have the cores from now on: it works for long."""
        if self.pidfd is not None and not self._is_nice:
            self._is_nice = True
            with suppress(OSError):  # it has ended
                os.setpriority(os.PRIO_PROCESS, self._pid, NICENESS)

    def end(self, why: str) -> None:
        """Kill it, if it lives: when this returns, it writes no mask any more."""
        self.refusal, self.is_ready = why, False
        if self.pidfd is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            gone = select.poll()
            gone.register(self.pidfd, select.POLLIN)
            gone.poll(_ENDS_WITHIN_MS)
            os.close(self.pidfd)
            self.pidfd = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None
