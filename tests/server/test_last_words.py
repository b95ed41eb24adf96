"""What an engine sent before it ended is heard, however late it comes."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence

import pytest

from lostwax.server.gateway import supervised
from lostwax.server.gateway.supervised import SupervisedEngine

LATE = """
import os, sys, time, zmq
from lostwax.server.engine.messages import Fatal, encode
reading, writing = os.pipe()
if os.fork():  # its end is seen, while its words are under way
    os.read(reading, 1)
    os._exit(7)
socket = zmq.Context().socket(zmq.PAIR)
seen = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
socket.connect(sys.argv[1])
seen.recv_multipart()
os.write(writing, b".")
os.close(writing)
time.sleep(float(sys.argv[2]))
socket.send(encode([Fatal("its last words")]))
socket.close(linger=5000)
zmq.Context.instance().term()
"""


def _ended(command: Sequence[str]) -> tuple[str, float]:
    """Why an engine did not start, and after how many seconds that was known."""

    async def waited() -> str:
        engine = SupervisedEngine(
            lambda link: [*command[:3], link.address, *command[3:]], announce=lambda _: None
        )
        await engine.start()
        why = await engine.wait_failed()
        await engine.stop()
        return why

    began = time.monotonic()
    return asyncio.run(waited()), time.monotonic() - began


def test_words_that_come_after_the_end_are_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervised, "LAST_WORDS_S", 60)
    why, seconds = _ended([sys.executable, "-c", LATE, "0.5"])
    assert why == "its last words"
    assert seconds < 30


def test_a_connection_that_does_not_end_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervised, "LAST_WORDS_S", 0.1)
    assert _ended([sys.executable, "-c", LATE, "3"])[0] == "the engine ended with code 7"


def test_who_ended_without_a_connection_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervised, "LAST_WORDS_S", 60)
    why, seconds = _ended([sys.executable, "-c", "raise SystemExit(5)"])
    assert why == "the engine ended with code 5"
    assert seconds < 30
