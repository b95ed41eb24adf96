"""However and whenever a process that follows a grammar ends, its engine goes on."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from fake_runtime import EOS, FakeLimits
from grammar_engine import JSON, ORACLE, WIDE, ConstrainedEngine, constrained
from grammar_processes import process_of, require_end
from grammar_vocabulary import grammars_of

from lostwax.server.grammar.grammar import Grammar
from lostwax.server.grammar.grammar_process import ENDED, GrammarProcess
from lostwax.server.grammar.messages import Ask

ENDS = (signal.SIGKILL, signal.SIGPROF, signal.SIGABRT, signal.SIGSTOP)
"""By somebody; by the kernel, at the end of its time for masks; by itself, where there is no memory
for it; not at all, until the engine ends it."""


def _end(made: ConstrainedEngine, end: signal.Signals) -> None:
    pid = process_of(made.grammars, JSON)
    os.kill(pid, end)
    if end != signal.SIGSTOP:
        require_end(pid)


@pytest.mark.parametrize("told", ["with statistics", "without"])
@pytest.mark.parametrize("depth", [0, 1])
def test_an_engine_goes_on_behind_each_end_of_a_process(
    tmp_path: Path, depth: int, told: str
) -> None:
    with constrained(tmp_path, depth, hang_s=0.2) as made:

        def settle(name: str) -> None:
            """As an engine does between steps, while another request waits for its grammar."""
            made.run()
            if told == "with statistics":
                assert made.core.stats.grammars is not None
            made.add(
                f"{name}, beside it", [3], grammar=Grammar("regex", f"(ab|cd){{{len(names)}}}")
            )
            made.settle()
            if told == "with statistics":
                assert made.core.stats.grammars is not None
            made.run()
            made.settle()

        names = list[str]()
        for end in ENDS:
            names.append(f"{end.name} in an answer")
            made.add(names[-1], [1, 2], 30, grammar=JSON)
            while len(made.ids(names[-1])) < 1:
                made.step()
            _end(made, end)
            settle(names[-1])
            assert {*made.failed()} == {*names[::2]}
            names.append(f"{end.name} behind an answer")
            made.add(names[-1], [1, 2], 30, grammar=JSON)
            made.run()
            assert made.ids(names[-1]) == ORACLE.answer([1, 2], JSON, 30)
            _end(made, end)
            settle(names[-1])
            with pytest.raises(KeyError):
                made.grammars.process(JSON)
        assert {*made.failed()} == {*names[::2]}
        assert not made.said


def _begun(process: GrammarProcess) -> int:
    """The only answer of a process that is ready, which has heard of it."""
    number = process.open((EOS,), None)
    process.leave()  # who wanted the grammar has its answer
    process.ask([Ask(number, [], [], 0)])
    return number


@pytest.mark.parametrize("is_known", [True, False])
def test_only_those_that_live_are_waited_for(tmp_path: Path, is_known: bool) -> None:
    grammars = grammars_of(tmp_path, FakeLimits())
    try:
        process = grammars.want(WIDE)
        while not process.is_ready:
            grammars.look(0.05)
        number = _begun(process)
        pid = process_of(grammars, WIDE)
        os.kill(pid, signal.SIGKILL)
        require_end(pid)
        if is_known:
            process.end(ENDED)
        process.close(number)
        assert process.refusal == ENDED, "its socket says so"
        assert not process.is_counting
        assert not grammars.is_counting
        for text in "abc":  # more than begin at once: the last has no socket yet
            grammars.want(Grammar("regex", text))
        grammars.look(0.05)
    finally:
        grammars.stop()
