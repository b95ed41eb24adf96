"""A server of our own for as long as a block runs: `lostwax serve` as a child on a free port.

Run as `python -m lostwax.cli.served_child PARENT [serve arguments]`; the parent does. However the
parent ends, the child ends too: it is asked to, and it watches.

The child says through a pipe that it is ready and on which port. What it prints is for the user
alone: an artifact may put any words into it.
"""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO

import msgspec

from lostwax.backends.runtime.say import MAX_LINE, say
from lostwax.ir.contract.one_line import one_line
from lostwax.ir.contract.own_program import own_program
from lostwax.server.gateway.ready_pipe import Ready

LOOPBACK = "127.0.0.1"
END_S = 5.0
"""How long the child may take to end when it is asked to."""
MAX_READ_BYTES = 1 << 16


class ServerEnded(RuntimeError):
    """The child ended before it was ready; the message is its own."""


@contextmanager
def served_child(
    arguments: Sequence[str], progress: Callable[[str], None] = lambda _: None
) -> Generator[str]:
    """The URL of `lostwax serve ARGUMENTS`, once it answers. `progress` is told each line that it
    prints until then; later ones go to standard error. Raises ServerEnded."""
    told, telling = os.pipe()
    with open(told, "rb", buffering=0) as pipe:
        try:
            child = _start(arguments, telling)
        finally:
            os.close(telling)  # the child's end alone is left: the pipe ends with it
        assert child.stderr is not None
        is_over = threading.Event()
        with child:
            try:
                port = _port(child.stderr, pipe, progress)
                passing = threading.Thread(target=_pass_on, args=(child.stderr, is_over))
                passing.daemon = True
                passing.start()
                yield f"http://{LOOPBACK}:{port}"
            finally:
                is_over.set()  # that it ends because we ask it to is no news
                _end(child)


def _start(arguments: Sequence[str], telling: int) -> subprocess.Popen[bytes]:
    ours = ["--host", LOOPBACK, "--port", "0", "--ready-fd", str(telling)]
    command = [*own_program("lostwax.cli.served_child"), str(os.getpid())]
    # A session of its own: Ctrl-C is for the parent, which may only want to stop an answer.
    return subprocess.Popen(
        [*command, *arguments, *ours],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        bufsize=0,
        start_new_session=True,
        pass_fds=[telling],
    )


def _end(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(END_S)
    except subprocess.TimeoutExpired:
        child.kill()


def _port(stderr: IO[bytes], pipe: IO[bytes], progress: Callable[[str], None]) -> int:
    """Where the child listens, when it is ready."""
    last, lines = "it said nothing", _Lines()
    with selectors.DefaultSelector() as waiting:
        waiting.register(stderr, selectors.EVENT_READ)
        waiting.register(pipe, selectors.EVENT_READ)
        while True:
            found = [key.fileobj for key, _ in waiting.select()]
            # What was printed before the message is read before it.
            if stderr in found:
                printed = stderr.read(MAX_READ_BYTES)
                if not printed:
                    waiting.unregister(stderr)
                for line in lines.of(printed):
                    last = line
                    progress(line)
                continue
            message = pipe.read(MAX_READ_BYTES)
            if not message:
                raise ServerEnded(f"the server did not start: {last.removeprefix('lostwax: ')}")
            return msgspec.json.decode(message, type=Ready).port


def _pass_on(stderr: IO[bytes], is_over: threading.Event) -> None:
    lines = _Lines()
    with suppress(ValueError, OSError):  # closed under us: the block has ended
        while printed := stderr.read(MAX_READ_BYTES):
            for line in lines.of(printed):
                if not is_over.is_set():
                    say(line)


class _Lines:
    """Makes clean lines out of what comes; one that is too long is cut."""

    def __init__(self) -> None:
        self._rest = b""

    def of(self, printed: bytes) -> Iterator[str]:
        """The lines that `printed` completes, without the empty ones."""
        *whole, rest = (self._rest + printed).split(b"\n")
        self._rest = rest[-MAX_READ_BYTES:]
        for line in whole:
            if line.strip():
                yield one_line(line.rstrip().decode(errors="replace"), MAX_LINE)


def main() -> None:
    """Serve until the parent ends."""
    from lostwax.cli.app import main as lostwax
    from lostwax.server.engine.parent import end_with_parent

    parent, *arguments = sys.argv[1:]
    end_with_parent(int(parent))
    lostwax(["serve", *arguments])


if __name__ == "__main__":
    main()
