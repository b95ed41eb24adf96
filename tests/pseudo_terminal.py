"""A command in a terminal of its own, typed to and read from. Knows no command."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager

TIMEOUT_S = 120.0  # loaded machines are slow
CTRL_C, CTRL_D = "\x03", "\x04"
# The terminal becomes the process' own, so that Ctrl-C reaches it as a signal.
_START = (
    "import fcntl, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
    "from lostwax.cli import main; main(sys.argv[1:])"
)


class Terminal:
    """What a user at the terminal can do: type, and see."""

    def __init__(self, master: int, process: subprocess.Popen[bytes]) -> None:
        self._master = master
        self.process = process
        self.seen = ""
        self._read = 0

    def type(self, text: str) -> None:
        """Press keys; half a surrogate pair is a byte that is no text."""
        os.write(self._master, text.encode(errors="surrogateescape"))

    def expect(self, pattern: str, timeout_s: float = TIMEOUT_S) -> re.Match[str]:
        """Wait until what was not expected yet matches."""
        end = time.monotonic() + timeout_s
        while (found := re.compile(pattern, re.S).search(self.seen, self._read)) is None:
            left = end - time.monotonic()
            if left < 0 or not self._more(left):
                raise AssertionError(f"{pattern!r} never came; seen was:\n{self.seen}")
        self._read = found.end()
        return found

    def interrupt(self, pattern: str) -> re.Match[str]:
        """Press Ctrl-C until the pattern comes: Python's readline sleeps over a signal that it gets
        after it has printed its prompt and before it waits for keys, and users press again."""
        end = time.monotonic() + TIMEOUT_S
        while True:
            self.type(CTRL_C)
            try:
                return self.expect(pattern, timeout_s=3.0)
            except AssertionError:
                if time.monotonic() > end:
                    raise

    def status(self) -> int:
        """The status with which the command ends."""
        while self._more(TIMEOUT_S):
            pass
        return self.process.wait(TIMEOUT_S)

    def _more(self, seconds: float) -> bool:
        if not select.select([self._master], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:  # the other side is closed
            return False
        self.seen += data.decode(errors="replace").replace("\r", "")
        return bool(data)


@contextmanager
def terminal(*arguments: str | os.PathLike[str]) -> Generator[Terminal]:
    """`lostwax ARGUMENTS` in a terminal; killed when the block ends."""
    master, slave = os.openpty()
    command: Sequence[str | os.PathLike[str]] = [sys.executable, "-c", _START, *arguments]
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80"}
    process = subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True, env=environment
    )
    os.close(slave)
    try:
        yield Terminal(master, process)
    finally:
        process.kill()
        process.wait()
        os.close(master)
