"""Processes that follow grammars end, hang and are stopped: whom that fails, and whom not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_runtime import generate
from grammar_engine import CHOICE, JSON, ORACLE, WIDE, constrained
from grammar_processes import process_of, require_end


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("depth", [0, 1])
def test_a_process_that_ends_or_hangs_fails_the_answers_of_its_grammar_alone(
    tmp_path: Path, end: signal.Signals, depth: int
) -> None:
    with constrained(tmp_path, depth, 1, hang_s=0.5) as made:
        made.add("a", [1, 2], 30, grammar=JSON)
        made.add("b", [1, 2, 3], 30, grammar=WIDE)
        made.add("c", [4], 30, ignore_eos=True)
        while len(made.ids("a")) < 2:
            made.step()
        pid = process_of(made.grammars, JSON)
        os.kill(pid, end)
        made.run()
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        failed = made.failed()
        assert {*failed} == {"a"}
        assert failed["a"].code == "grammar_failed"
        assert "was ended" in failed["a"].message
        assert made.ids("b") == ORACLE.answer([1, 2, 3], WIDE, 30)
        assert made.ids("c") == generate([4], 30)
        assert not made.said, "the step did not fail"
        made.add("d", [1, 2], 30, grammar=JSON)
        made.run()
        assert made.ids("d") == ORACLE.answer([1, 2], JSON, 30), "it was started again"


def test_a_process_that_was_killed_while_nobody_needed_it_is_started_again(tmp_path: Path) -> None:
    with constrained(tmp_path) as made:
        made.add("a", [1], grammar=CHOICE)
        made.run()
        os.kill(process_of(made.grammars, CHOICE), signal.SIGKILL)
        time.sleep(0.05)
        made.add("b", [2], grammar=CHOICE)
        made.run()
        assert made.ids("b") == ORACLE.answer([2], CHOICE, 20)


def test_a_host_that_was_killed_is_started_again(tmp_path: Path) -> None:
    with constrained(tmp_path) as made:
        made.add("a", [1], grammar=CHOICE)
        made.run()
        follower = process_of(made.grammars, CHOICE)
        os.kill(made.grammars.host_pid, signal.SIGKILL)
        require_end(follower)  # nobody else would end it if it were stopped
        made.add("b", [1], grammar=CHOICE)
        made.add("c", [2], grammar=WIDE)
        made.run()
        assert made.ids("b") == ORACLE.answer([1], CHOICE, 20)
        assert made.ids("c") == ORACLE.answer([2], WIDE, 20)


LEAVES = """
import os, signal, sys, time
from pathlib import Path
from grammar_processes import process_of, require_end
from grammar_vocabulary import grammars_of
from fake_runtime import FakeLimits
from lostwax.server.grammar.grammar import Grammar
grammar, grammars = Grammar("regex", "ab"), grammars_of(Path(sys.argv[1]), FakeLimits(), 1.0)
process = grammars.want(grammar)
while not process.is_ready:
    grammars.look(0.05)
pids = process_of(grammars, grammar), grammars.host_pid
for pid in pids:
    os.kill(pid, signal.SIGSTOP)
print(*pids, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_stopped_processes_do_not_outlive_an_engine_that_is_killed(tmp_path: Path) -> None:
    path = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", LEAVES, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    follower, host = map(int, done.stdout.split())
    require_end(follower)
    require_end(host)
