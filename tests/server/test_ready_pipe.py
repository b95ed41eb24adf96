"""The pipe that is told when the server answers."""

from __future__ import annotations

import os

import pytest
from command_line import lostwax, one_sentence

from lostwax.server.gateway.ready_pipe import Ready, ReadyPipe


def test_the_reader_gets_one_line_and_the_end() -> None:
    reading, writing = os.pipe()
    pipe = ReadyPipe(writing)
    assert not os.get_inheritable(writing)
    pipe.tell(Ready(81))
    pipe.tell(Ready(82))  # an engine that was started again
    with open(reading, "rb") as reader:
        assert reader.read() == b'{"port":81}\n'


def test_a_reader_that_is_gone_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    ReadyPipe(writing).tell(Ready(81))


def test_what_cannot_be_written_to_is_refused_before_anything_starts(
    capsys: pytest.CaptureFixture[str],
) -> None:
    reading, writing = os.pipe()
    for wrong in (reading, -1, 1 << 40, 999):
        status, _, err = lostwax(capsys, "serve", "--ready-fd", wrong)
        assert status == 1
        assert "--ready-fd must be the number of a pipe's end" in one_sentence(err)
    os.close(reading)
    os.close(writing)
