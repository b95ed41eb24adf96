"""A server of our own for as long as a block runs: `lostwax serve` as a child on a free port.

Run as `python -m lostwax.cli.served_child PARENT [serve arguments]`; the parent does. However the
parent ends, the child ends too: it is asked to, and it watches.
"""

from __future__ import annotations

import os
import queue
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress

READY = " is ready: "
END_S = 5.0
"""How long the child may take to end when it is asked to."""


class ServerEnded(RuntimeError):
    """The child ended before it was ready; the message is its own."""


@contextmanager
def served_child(
    arguments: Sequence[str], progress: Callable[[str], None] = lambda _: None
) -> Generator[str]:
    """The URL of `lostwax serve ARGUMENTS`, once it answers. `progress` is told what it prints."""
    command = [sys.executable, "-m", "lostwax.cli.served_child", str(os.getpid())]
    # A session of its own: Ctrl-C is for the parent, which may only want to stop an answer.
    with subprocess.Popen(
        [*command, *arguments, "--port", "0"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as child:
        try:
            yield _ready_url(_lines(child), progress)
        finally:
            _end(child)


def _end(child: subprocess.Popen[str]) -> None:
    child.terminate()
    try:
        child.wait(END_S)
    except subprocess.TimeoutExpired:
        child.kill()


def _lines(child: subprocess.Popen[str]) -> Iterator[str]:
    """What the child prints until it is ready; from then on the user reads it."""
    waiting: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    assert child.stderr is not None
    stderr = child.stderr

    def read() -> None:
        is_ready = False
        with suppress(ValueError, OSError):  # closed under us: the block has ended
            for line in stderr:
                if is_ready:
                    print(line, end="", file=sys.stderr, flush=True)
                waiting.put(line.rstrip())
                is_ready = is_ready or READY in line
        waiting.put(None)

    threading.Thread(target=read, name="server", daemon=True).start()
    return iter(waiting.get, None)


def _ready_url(lines: Iterator[str], progress: Callable[[str], None]) -> str:
    url, last = "", "it said nothing"
    for line in lines:
        found = re.search(r"listening on (http://\S+);", line)
        url = found[1] if found else url
        if READY in line and url:
            return url
        last = line.removeprefix("lostwax: ").strip() or last
        progress(line)
    raise ServerEnded(f"the server did not start: {last}")


def main() -> None:
    """Serve until the parent ends."""
    from lostwax.cli.app import main as lostwax
    from lostwax.server.engine.parent import end_with_parent

    parent, *arguments = sys.argv[1:]
    end_with_parent(int(parent))
    lostwax(["serve", *arguments])


if __name__ == "__main__":
    main()
