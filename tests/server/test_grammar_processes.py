"""Processes that follow grammars end, hang and are stopped: whom that fails, and whom not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from fake_runtime import EOS, FakeLimits, generate
from grammar_engine import CHOICE, JSON, ORACLE, WIDE, constrained
from grammar_processes import process_of, require_end
from grammar_vocabulary import CODEC, grammars_of, raise_it

from lostwax.server.grammar.grammar import Grammar
from lostwax.server.grammar.grammar_process import ENDED, NO_HOST, TOO_SLOW, GrammarProcess
from lostwax.server.grammar.grammars import Grammars, Wanted
from lostwax.server.grammar.messages import (
    MAX_FRAME_BYTES,
    Ask,
    Close,
    Compile,
    Compiled,
    Made,
    Masks,
    decode_request,
    encode,
)


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


def test_hundreds_of_answers_of_one_grammar_begin_and_are_cancelled_at_once(tmp_path: Path) -> None:
    """More of either than frames fit into a socket: each was one, and its process was ended."""
    count = 512
    grammars = grammars_of(tmp_path, FakeLimits(max_reqs=count))
    process = grammars.want(WIDE)
    while not process.is_ready:
        grammars.look(0.05)
    pid = process_of(grammars, WIDE)
    try:
        os.kill(pid, signal.SIGSTOP)  # it reads nothing before the next step
        for number in [process.open((EOS,), None) for _ in range(count)]:
            process.close(number)
        begun = [process.open((EOS,), None) for _ in range(count)]
        for asked in (begun, begun[-1:]):
            os.kill(pid, signal.SIGCONT)
            wanted = [Wanted(process, number, [], [], row) for row, number in enumerate(asked)]
            masks = grammars.masks(wanted, len(asked))
            assert {each.fault for each in wanted} == {None}
            assert (masks == masks[0]).all()
            assert (masks != -1).all(), "each has a mask"
            os.kill(pid, signal.SIGSTOP)
            for number in asked[:-1]:
                process.close(number)
        assert process.refusal is None
    finally:
        grammars.stop()


@pytest.mark.parametrize("answers", [True, False])
def test_one_that_ends_while_another_is_late_fails_nobody_else(answers: bool) -> None:
    grammars = Grammars([], vocab_size=32, eos=0, max_masks=2, log=raise_it, hang_s=30)
    ending, late = (GrammarProcess(Grammar("regex", text), raise_it) for text in "ab")
    its, others = ending.begin(), late.begin()
    ending.forked_s = late.forked_s = 0.0

    def follow() -> None:
        for socket in (its, others):
            socket.recv(MAX_FRAME_BYTES)  # the grammar
            socket.recv(MAX_FRAME_BYTES)  # what is asked
        if answers:
            its.send(encode(Made()))
            while ending.made is None:  # its end must come alone, behind its answer
                time.sleep(0.01)
        its.close()
        time.sleep(0.2)  # it is seen
        others.send(encode(Made()))

    following = threading.Thread(target=follow)
    following.start()
    wanted = [Wanted(ending, 1, [], [], 0), Wanted(late, 1, [], [], 1)]
    grammars.masks(wanted, 2)
    following.join()
    assert [each.fault for each in wanted] == [None if answers else ending.refusal, None]
    assert (ending.refusal is None) == answers
    others.close()
    late.end(ENDED)
    ending.end(ENDED)
    grammars.stop()


def _process() -> GrammarProcess:
    return GrammarProcess(Grammar("regex", "a"), raise_it)


@pytest.mark.parametrize(("is_ready", "why"), [(True, ENDED), (False, TOO_SLOW)])
def test_one_that_ends_before_it_was_ready_took_too_long(is_ready: bool, why: str) -> None:
    process = _process()
    with process.begin() as its:
        process.forked_s = 0.0
        if is_ready:
            its.send(encode(Compiled(0)))
        process.hear(0.0)
        assert process.is_ready == is_ready
        its.recv(MAX_FRAME_BYTES)  # the grammar
    process.hear(0.0)
    assert process.refusal == why


def test_a_host_that_ends_before_it_has_forked_is_asked_again_once() -> None:
    process = _process()
    process.begin().close()
    process.hear(0.0)
    assert process.refusal is None, "another host may fork"
    assert not process.has_begun
    process.begin().close()
    process.hear(0.0)
    assert process.refusal == NO_HOST


def test_answers_that_are_over_are_told_together() -> None:
    process = _process()
    with process.begin() as its:
        its.setblocking(False)
        numbers = [process.open((EOS,), None) for _ in range(3)]
        process.ask([Ask(number, [], [], row) for row, number in enumerate(numbers)])
        told = [decode_request(its.recv(MAX_FRAME_BYTES)) for _ in range(2)]
        assert [type(each) for each in told] == [Compile, Masks]
        for number in numbers[:2]:
            process.close(number)
        with pytest.raises(BlockingIOError):
            its.recv(MAX_FRAME_BYTES)
        process.close(numbers[2])
        assert decode_request(its.recv(MAX_FRAME_BYTES)) == Close(numbers)
    process.end(ENDED)


def test_a_row_of_who_cannot_go_on_allows_every_id(tmp_path: Path) -> None:
    grammars = grammars_of(tmp_path, FakeLimits())
    try:
        process = grammars.want(Grammar("choice", '["a", "b\u00df"]'))  # no token has that letter
        while not process.is_ready:
            assert process.refusal is None
            grammars.look(0.05)
        wanted = Wanted(process, process.open((EOS,), None), CODEC.encode("b"), [], 0)
        masks = grammars.masks([wanted], 1)
        assert wanted.fault is not None
        assert (masks == -1).all()
    finally:
        grammars.stop()


LEAVES = """
import os, signal, sys, time
from pathlib import Path
from grammar_processes import process_of, require_end

from lostwax.server.grammar.grammar import Grammar
from lostwax.server.grammar.grammar_process import ENDED, GrammarProcess
from lostwax.server.grammar.grammars import Grammars, Wanted
from lostwax.server.grammar.messages import MAX_FRAME_BYTES, Made, encode
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
