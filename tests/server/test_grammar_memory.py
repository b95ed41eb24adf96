"""What processes of grammars hold is heard when nobody needs them, and never while a step waits."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
from fake_runtime import EOS, FakeLimits
from grammar_engine import CHOICE, WIDE, constrained
from grammar_processes import process_of
from grammar_vocabulary import grammars_of, raise_it
from scripted_runtime import CODEC, ScriptedRuntime

from lostwax.ir.contract.masks import num_masks
from lostwax.server.engine import process as engine_process
from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.messages import Event, Output, Stats, Submit
from lostwax.server.engine.options import EngineOptions
from lostwax.server.engine.process import run_engine
from lostwax.server.engine.stats import StatsClock
from lostwax.server.gateway.in_process import InProcessEngine
from lostwax.server.grammar import grammar_process
from lostwax.server.grammar import grammars as grammars_module
from lostwax.server.grammar.grammar import Grammar
from lostwax.server.grammar.grammars import Grammars
from lostwax.server.grammar.messages import Ask, Compiled, Reply, decode_reply
from lostwax.server.grammar.process import COUNT_AFTER_S


def _until(is_so: Callable[[], bool], step: Callable[[], object]) -> None:
    until = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < until, "it never comes"
        step()


def test_it_is_heard_without_a_further_request_and_one_that_is_too_large_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with constrained(tmp_path) as made:
        made.add("a", [1], grammar=CHOICE)
        made.run()
        made.settle()
        process = made.grammars.process(CHOICE)
        assert process.num_bytes > 0
        process.num_bytes = 0  # it has not grown in the test's answer
        made.add("b", [1], grammar=CHOICE)
        made.run()
        monkeypatch.setattr(grammars_module, "MAX_IDLE_BYTES", 1)
        grammars = made.core.stats.grammars
        assert grammars is not None
        assert grammars.processes["idle"] == 1, "it has not said so yet"
        made.settle()
        assert made.grammars.stats.processes["idle"] == 0


def test_one_that_never_says_it_is_ended(tmp_path: Path) -> None:
    with constrained(tmp_path, hang_s=0.5) as made:
        made.add("a", [1], grammar=CHOICE)
        made.run()
        os.kill(process_of(made.grammars, CHOICE), signal.SIGSTOP)
        made.settle()
        with pytest.raises(KeyError):
            made.grammars.process(CHOICE)


def test_it_is_counted_when_no_step_waits_and_no_answer_is_open(tmp_path: Path) -> None:
    grammars = grammars_of(tmp_path, FakeLimits())
    try:
        process = grammars.want(WIDE)
        _until(lambda: process.is_ready, lambda: grammars.look(0.05))
        first = process.open((EOS,), None)
        process.leave()  # who wanted the grammar has its answer
        process.ask([Ask(first, [], [], 0)])
        _until(lambda: process.made is not None, lambda: process.hear(0.0))
        process.num_bytes = 0
        pid = process_of(grammars, WIDE)
        os.kill(pid, signal.SIGSTOP)
        process.close(first)
        second = process.open((EOS,), None)
        process.ask([Ask(second, [], [], 0)])
        os.kill(pid, signal.SIGCONT)
        _until(lambda: process.made is not None, lambda: process.hear(0.0))
        assert process.num_bytes == 0, "it was counted before the masks that a step waits for"
        time.sleep(3 * COUNT_AFTER_S)
        process.hear(0.0)
        assert process.num_bytes == 0, "it was counted while an answer may ask"
        process.close(second)
        _until(lambda: not process.is_counting, lambda: process.hear(0.0))
        assert process.num_bytes > 0
    finally:
        grammars.stop()


class _Over(Exception):
    """The engine waits for commands, and none will come."""


class _Wire:
    """A gateway's end that sends one request."""

    def __init__(self, *_: object) -> None:
        self._commands = [REQUEST]

    def __enter__(self) -> _Wire:
        return self

    def __exit__(
        self,
        _: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return

    def send(self, events: Sequence[Event]) -> None:
        SENT.extend(events)

    def receive(self, *, wait: bool) -> list[Submit]:
        commands, self._commands = self._commands, []
        if wait and not commands:
            raise _Over
        return commands

    def step_begins(self) -> None:
        return

    def step_ends(self) -> None:
        return


REQUEST = Submit(request="a", prompt=[1], max_tokens=9, grammar=Grammar("regex", "ab"))
SENT: list[Any] = []


def _in_a_process(runtime: ScriptedRuntime, folder: Path) -> Stats:
    """What an engine in a process of its own reports last, before it waits for commands."""
    SENT.clear()
    with pytest.raises(_Over):
        run_engine(lambda _: runtime, "", EngineOptions(reports=True), None, [folder])
    ends = [event.finish for event in SENT if isinstance(event, Output)]
    assert ends[-1] == "stop"
    return [event for event in SENT if isinstance(event, Stats)][-1]


def _in_this_process(runtime: ScriptedRuntime, folder: Path) -> Stats:
    """What one in the gateway's process says as soon as it has heard all, or after ten seconds."""
    limits = runtime.limits
    most = num_masks(limits.max_reqs, limits.max_drafts)
    ends = runtime.facts.eos_token_ids
    grammars = Grammars([folder], limits.vocab_size, ends[0], most, log=raise_it)
    engine = InProcessEngine(EngineCore(runtime, EngineOptions(), grammars=grammars))

    async def stats() -> Stats:
        await engine.start()
        events = [event async for event in engine.stream([REQUEST])]
        assert events[-1].finish == "stop"
        with suppress(TimeoutError):
            async with asyncio.timeout(10):
                while _idle(engine.stats) != 0:
                    await asyncio.sleep(0.01)
        await engine.stop()
        assert engine.stats is not None
        return engine.stats

    try:
        return asyncio.run(stats())
    finally:
        grammars.stop()


def _idle(stats: Stats | None) -> int | None:
    return None if stats is None or stats.grammars is None else stats.grammars.processes["idle"]


@pytest.mark.parametrize("last_stats", [_in_a_process, _in_this_process])
def test_an_engine_that_falls_silent_has_heard_it_and_reports_that(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    last_stats: Callable[[ScriptedRuntime, Path], Stats],
) -> None:
    (tmp_path / "tokenizer.json").write_bytes(CODEC.serialised())
    monkeypatch.setattr(engine_process, "EngineWire", _Wire)
    monkeypatch.setattr(grammars_module, "MAX_IDLE_BYTES", 1)
    told = list[Compiled]()

    def heard(frame: bytes) -> Reply:
        """What a process says, which holds nothing at first."""
        reply = decode_reply(frame)
        if isinstance(reply, Compiled):
            told.append(reply)
            return reply if told[1:] else Compiled(0)
        return reply

    monkeypatch.setattr(grammar_process, "decode_reply", heard)
    last = last_stats(ScriptedRuntime(script=CODEC.encode("ab")), tmp_path)
    assert len(told) == 2
    assert last.grammars is not None
    assert last.grammars.processes == {"compiling": 0, "used": 0, "idle": 0}


def test_a_report_is_due_when_work_ends_and_when_what_was_still_to_be_heard_has_come() -> None:
    clock = StatsClock(lambda: 0.0)
    asked = [(True, True), (False, True), (False, True), (False, False), (False, False)]
    due = [clock.is_due(is_busy=busy, is_settling=settling) for busy, settling in asked]
    assert due == [True, True, False, True, False]
