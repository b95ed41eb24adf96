"""Ends a process whose parent is gone: nobody would end it otherwise. Knows nothing it does."""

from __future__ import annotations

import os
import threading
import time

LOOK_S = 0.25


def end_with_parent(parent: int) -> None:
    """End this process when `parent`, the process that started it, has ended; at once if it has.

    The pid is the parent's own `os.getpid()`, handed down with the command. This process' own
    `os.getppid()` does not do: a parent that was killed before this line has been replaced by
    whoever inherits orphans, which would then be watched for ever.
    """
    if os.getppid() != parent:
        os._exit(1)
    # A thread, since the main one may be inside a step, or wait for another rank, for long.
    threading.Thread(target=_watch, args=(parent,), name="parent", daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_S)
    os._exit(1)  # not sys.exit: that would end this thread alone
