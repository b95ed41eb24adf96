"""All grammars that an engine's requests follow, a process each. Knows no request and no step.

Processes of grammars that nobody needs now are kept, the last used longest, within bounds of bytes.
"""

from __future__ import annotations

import mmap
import os
import select
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lostwax.ir.contract.masks import mask_words
from lostwax.ir.contract.own_program import own_program
from lostwax.server.grammar.counts import GrammarCounts, GrammarStats
from lostwax.server.grammar.grammar import Grammar
from lostwax.server.grammar.grammar_process import (
    ENDED,
    TOO_MANY,
    TOO_SLOW,
    GrammarProcess,
    Log,
)
from lostwax.server.grammar.messages import Ask
from lostwax.server.grammar.times import COMPILE_S

MAX_PROCESSES = 256
"""At once; further grammars wait."""
MAX_WAITING = 128
"""Grammars that are not ready, which requests wait for: further ones are refused. Each may take the
whole time for compiling."""
MAX_COMPILING = 2
"""At once: they take cores from the steps."""
MAX_IDLE = 32
MAX_IDLE_BYTES = 256 << 20
"""Of the processes that nobody needs."""
HOST_S = 60.0
"""For the host to start, and fork."""
HANG_S = 5.0
"""For the masks of a step. What takes processor time ends by itself long before; this is for who is
stopped, and must not fail who merely waits for a core."""
HONEST_S = 0.1
"""Compiling takes less, but for large grammars and hostile ones: those give way to steps."""
GRACE_S = 1.0
"""A process ends by its own alarm before that."""
_MODULE = "lostwax.server.grammar.host"


@dataclass(slots=True)
class Wanted:
    """The masks of one answer in a step: behind `tokens` and each of `drafts`, from `row` on."""

    process: GrammarProcess
    number: int
    tokens: list[int]
    drafts: list[int]
    row: int
    fault: str | None = None
    """Why there are none."""


class Grammars:
    """Starts processes, and asks them. `folders` are where the tokenizer is looked for; a step has
    `max_masks` masks at most, of `vocab_size` ids; `eos` is a token that ends answers; `log` is
    told of faults in processes.

    Called from one thread.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        vocab_size: int,
        eos: int,
        max_masks: int,
        *,
        log: Log,
        hang_s: float = HANG_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._command = own_program(_MODULE)
        self._command += ["--vocab-size", str(vocab_size), "--eos", str(eos)]
        self._command += ["--parent", str(os.getpid())]
        self._command += [part for folder in folders for part in ("--tokenizer", str(folder))]
        self._log = log
        self._hang_s = hang_s
        self._clock = clock
        words = mask_words(vocab_size)
        self._file = os.memfd_create("masks")
        os.ftruncate(self._file, max_masks * words * 4)
        held = np.frombuffer(mmap.mmap(self._file, 0), np.int32)
        self._masks: NDArray[np.int32] = held.reshape(max_masks, words)
        self._processes: dict[Grammar, GrammarProcess] = {}
        """The last used last."""
        self._queue: list[tuple[GrammarProcess, float]] = []
        """Those that are not ready, with the time at which they were asked for."""
        self._host: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._counts = GrammarCounts()

    @property
    def stats(self) -> GrammarStats:
        """What an operator is told."""
        processes = {"compiling": 0, "used": 0, "idle": 0}
        for each in self._processes.values():
            if each.is_ready:
                processes["used" if each.users else "idle"] += 1
            elif each.has_begun:
                processes["compiling"] += 1
        return self._counts.stats(processes)

    @property
    def host_pid(self) -> int:
        """The process from which others are forked, 0 where there is none yet."""
        return 0 if self._host is None else self._host.pid

    def process(self, grammar: Grammar) -> GrammarProcess:
        """The process of a grammar that is known; KeyError for others."""
        return self._processes[grammar]

    def want(self, grammar: Grammar) -> GrammarProcess:
        """The process that follows a grammar, or will: `look` moves it on. The caller is a user. It
        is refused where too many wait."""
        found = self._processes.pop(grammar, None)
        if found is not None:
            found.hear(self._clock())  # it may have been killed
        if found is None or found.refusal is not None:
            found = GrammarProcess(grammar, self._log)
            if sum(process.users > 0 for process, _ in self._queue) >= MAX_WAITING:
                found.end(TOO_MANY)
                self._counts.note_refused(found.reason)
            else:
                self._queue.append((found, self._clock()))
        else:
            self._counts.cached += 1
        self._processes[grammar] = found
        found.users += 1
        return found

    @property
    def is_counting(self) -> bool:
        """Whether a process that nobody needs is yet to say what it holds."""
        return any(process.is_counting for process in self._processes.values())

    def look(self, wait_s: float = 0.0) -> None:
        """Start what waits for a process, and hear which grammars are ready or refused; where none
        is yet, for so long."""
        self._drop_abandoned()
        self._start_some()
        awaited = [process for process, _ in self._queue]
        awaited += [process for process in self._processes.values() if process.is_counting]
        alive = [process for process in awaited if process.has_begun]
        if wait_s and alive:
            _wait(alive, wait_s)
        now_s = self._clock()
        for process, asked_s in self._queue:
            process.hear(now_s)
            if process.has_begun and process.refusal is None and not process.is_ready:
                _press(process, now_s, asked_s)
        self._keep_waiting()
        self.drop_idle()

    def masks(self, wanted: Sequence[Wanted], num_rows: int) -> NDArray[np.int32]:
        """i32 [num_rows, words], valid until the next call: masks of a step. Rows that nobody
        wants, and those of who has a `fault` now, allow every id."""
        masks = self._masks[:num_rows]
        masks[:] = -1
        if not wanted:
            return masks
        began_s = self._clock()
        asked: dict[GrammarProcess, list[Wanted]] = {}
        for each in wanted:
            asked.setdefault(each.process, []).append(each)
        for process, its in asked.items():
            process.ask([Ask(w.number, w.tokens, w.drafts, w.row) for w in its])
        self._hear_all(list(asked))
        for each in wanted:
            made = each.process.made
            ended = each.process.refusal or ENDED
            each.fault = ended if made is None else made.faults.get(each.number)
            if each.fault is not None:
                masks[each.row : each.row + 1 + len(each.drafts)] = -1
        self._counts.note_masks(self._clock() - began_s)
        return masks

    def stop(self) -> None:
        """End all processes."""
        for process in self._processes.values():
            process.end(ENDED)
        if self._control is not None:
            self._control.close()
        if self._host is not None:
            self._host.wait()
        os.close(self._file)

    def _hear_all(self, asked: list[GrammarProcess]) -> None:
        """Until each has answered, or ended; one that hangs is ended. Who has said something is
        heard, and nobody else: a hundred may be late."""
        until_s = self._clock() + self._hang_s
        late = {each.fileno(): each for each in asked if each.refusal is None}
        poller = select.poll()
        for number in late:
            poller.register(number, select.POLLIN)
        while late:
            left_s = until_s - self._clock()
            if left_s <= 0:
                for process in late.values():
                    process.end(ENDED)
                return
            for number, _ in poller.poll(max(int(1000 * left_s), 1)):
                process = late[number]
                process.hear(self._clock())
                if process.made is not None or process.refusal is not None:
                    poller.unregister(number)
                    del late[number]

    def _start_some(self) -> None:
        num_compiling = sum(process.has_begun for process, _ in self._queue)
        num_begun = sum(process.has_begun for process in self._processes.values())
        for number, (process, _) in enumerate(self._queue):
            if num_compiling >= MAX_COMPILING or num_begun >= MAX_PROCESSES:
                return
            if not process.has_begun:
                with process.begin() as its:
                    self._hand_over(its)
                self._queue[number] = (process, self._clock())
                num_compiling, num_begun = num_compiling + 1, num_begun + 1

    def _hand_over(self, its: socket.socket) -> None:
        """Let the host fork for it; a host that has ended is started again."""
        for _ in range(2):
            if self._control is None or self._host is None or self._host.poll() is not None:
                self._start_host()
            assert self._control is not None
            try:
                socket.send_fds(self._control, [b"fork"], [its.fileno()])
                return
            except OSError:
                self._control.close()
                self._control = None

    def _start_host(self) -> None:
        if self._host is not None:
            self._host.kill()
            self._host.wait()
        if self._control is not None:
            self._control.close()
        self._control, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            files = ["--control", str(its.fileno()), "--masks", str(self._file)]
            self._host = subprocess.Popen(
                self._command + files,
                stdin=subprocess.DEVNULL,
                pass_fds=(its.fileno(), self._file),
                start_new_session=True,  # Ctrl-C is the gateway's
                # A thread of the library's would be lost in a fork.
                env={**os.environ, "TOKENIZERS_PARALLELISM": "false"},
            )

    def _drop_abandoned(self) -> None:
        """End those whose clients have left: none begins, and none that has holds up others."""
        is_held_up = any(each.users and not each.has_begun for each, _ in self._queue)
        for process, _ in self._queue:
            if not process.users and (is_held_up or not process.has_begun):
                process.end(ENDED)
        self._keep_waiting()

    def _keep_waiting(self) -> None:
        now_s, still = self._clock(), list[tuple[GrammarProcess, float]]()
        for process, asked_s in self._queue:
            if process.is_ready:
                self._counts.note_compiled(now_s - asked_s)
            elif process.refusal is None:
                still.append((process, asked_s))
            elif process.users:  # and not because they have left
                self._counts.note_refused(process.reason)
        self._queue = still

    def drop_idle(self) -> None:
        """End the processes that were used longest ago, as far as too many are kept, or too large
        ones: they say what they hold when nobody uses them any more."""
        num_bytes = num_idle = 0
        for grammar, process in reversed(list(self._processes.items())):
            if process.users:
                continue
            now_s = self._clock()
            process.hear(now_s)
            if process.counts_for_s(now_s) > self._hang_s:
                process.end(ENDED)
            is_over = num_idle == MAX_IDLE or num_bytes + process.num_bytes > MAX_IDLE_BYTES
            if is_over or process.refusal is not None:
                process.end(ENDED)
                del self._processes[grammar]
            else:  # one that is ended makes no room less for those before it
                num_idle, num_bytes = num_idle + 1, num_bytes + process.num_bytes


def _press(process: GrammarProcess, now_s: float, asked_s: float) -> None:
    """Let one that is not ready give way to steps, and end it where it is too late."""
    began_s = process.forked_s
    if began_s is None:
        is_late = now_s - asked_s > HOST_S
    else:
        is_late = now_s - began_s > COMPILE_S + GRACE_S
        if now_s - began_s > HONEST_S:
            process.give_way()
    if is_late:
        process.end(TOO_SLOW)


def _wait(processes: Sequence[GrammarProcess], seconds: float) -> None:
    """Until one of them says something, or ends."""
    poller = select.poll()
    for process in processes:
        poller.register(process.fileno(), select.POLLIN)
    poller.poll(max(int(1000 * seconds), 1))
