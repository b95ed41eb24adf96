"""What a grammar's process may take: the kernel ends it where it wants more."""

from __future__ import annotations

import signal
import textwrap

import pytest
from program_end import program_end

SPENDS = """
import time
from lostwax.server.grammar.allowance import Allowance
allowance = Allowance(0.1)
def work(seconds):
    until_s = time.process_time() + seconds
    while time.process_time() < until_s:
        pass
def spend(num_masks, seconds):
    with allowance.spending(num_masks):
        work(seconds)
"""


@pytest.mark.parametrize(
    ("program", "status"),
    [
        ("spend(0, 0.03)", 0),
        ("spend(0, 0.3)", -signal.SIGPROF),
        ("for _ in range(5): spend(0, 0.05)", -signal.SIGPROF),  # what was spent is gone
        ("for _ in range(5): spend(30, 0.05)", 0),  # 0.06 s are earned each time
        ("for _ in range(9): spend(10, 0.05)", -signal.SIGPROF),  # 0.02 s are
        ("spend(1000, 0.3)", -signal.SIGPROF),  # 2 s are earned, and no more than 0.1 s kept
        ("for _ in range(9): spend(1000, 0)\nspend(0, 0.3)", -signal.SIGPROF),
        ("spend(0, 0.03)\nwork(0.3)", 0),  # nobody asks for what comes between two masks
    ],
)  # fmt: skip
def test_time_is_earned_spent_and_kept_up_to_a_bound(program: str, status: int) -> None:
    assert program_end(SPENDS + program) == (status, "")


FOLLOWS = """
import os, socket, threading, time
from ctypes import addressof, c_char
from fake_runtime import EOS, VOCAB
from grammar_vocabulary import CODEC
from lostwax.server.grammar import process
from lostwax.server.grammar.follower import Follower, Rows
from lostwax.server.grammar.grammar import Grammar
from lostwax.server.grammar.messages import Ask, Close, Compile, Masks, Open, encode
from lostwax.server.grammar.vocabulary import Vocabulary
compile_grammar = process.compile_grammar
process.COMPILE_S = 1.0
{given}
engine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
engine.send(encode(Compile(Grammar("regex", "ab"))))
engine.send(encode(Masks([Ask(1, [], [], 0, Open((EOS,), None))])))
engine.send(encode(Close([1])))
threading.Timer(1.5, engine.shutdown, [socket.SHUT_WR]).start()  # later than the alarm would be
masks = bytearray(4 * 2)
rows = Rows(memoryview(masks), addressof(c_char.from_buffer(masks)), VOCAB)
process.follow(its, Vocabulary(CODEC, VOCAB, EOS), rows)
print("followed")
"""


@pytest.mark.parametrize(
    ("given", "end"),
    [
        ("", (0, "followed\n")),
        (
            """
            def loop(grammar, vocabulary):
                while True: pass
            process.compile_grammar = loop
            """,
            (-signal.SIGALRM, ""),
        ),
        (
            """
            def sleep(matcher, vocabulary):
                time.sleep(30)
            process.try_grammar = sleep
            """,
            (-signal.SIGALRM, ""),
        ),
        (
            """
            def allocate(grammar, vocabulary):
                try:
                    bytearray(2 * process.MORE_BYTES)
                except MemoryError:
                    os._exit(7)
                return compile_grammar(grammar, vocabulary)
            process.compile_grammar = allocate
            """,
            (7, ""),
        ),
        (
            """
            def loop(*_):
                while True: pass
            Follower.masks, process.try_grammar = loop, lambda *_: None
            """,
            (-signal.SIGPROF, ""),
        ),
    ],
    ids=["nothing", "a compile loops", "a trial sleeps", "a compile allocates", "a mask loops"],
)
def test_a_process_ends_that_takes_more_than_it_may(given: str, end: tuple[int, str]) -> None:
    assert program_end(FOLLOWS.format(given=textwrap.dedent(given))) == end
