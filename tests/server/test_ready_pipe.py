"""The pipe that is told when the server answers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from command_line import lostwax, one_sentence

from lostwax.server.gateway.ready_pipe import Ready, ReadyPipe


def test_the_reader_gets_one_line_and_the_end() -> None:
    reading, writing = os.pipe()
    pipe = ReadyPipe(writing)
    assert not os.get_inheritable(writing)
    pipe.tell(Ready(81))
    pipe.tell(Ready(82))  # an engine that was started again
    os.set_blocking(reading, False)  # a pipe that never ends is an error here, and no long wait
    assert os.read(reading, 100) == b'{"port":81}\n'
    assert os.read(reading, 100) == b"", "the pipe has ended"
    os.close(reading)


def test_a_reader_that_is_gone_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    ReadyPipe(writing).tell(Ready(81))


def test_what_cannot_be_written_to_is_refused_before_anything_starts(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text("{}")
    reading, writing = os.pipe()
    for wrong in (reading, -1, 1 << 40, 999):
        # Of such a checkpoint nothing starts, even where the descriptor is not refused.
        status, _, err = lostwax(capsys, "serve", tmp_path, "--ready-fd", wrong)
        assert status == 1
        assert "--ready-fd must be the number of a pipe's end" in one_sentence(err)
    status, _, err = lostwax(capsys, "serve", tmp_path, "--ready-fd", writing)
    assert status == 1
    assert "--ready-fd" not in one_sentence(err)
    os.close(reading)
    os.close(writing)
