"""Ends a process whose parent is gone: nobody would end it otherwise. Knows nothing it does."""

from __future__ import annotations

import os
import threading
import time

LOOK_S = 0.25


def end_with_parent() -> None:
    """Watch from a thread, since the main one may wait for another rank for long."""
    threading.Thread(target=_watch, args=(os.getppid(),), name="parent", daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_S)
    os._exit(1)  # not sys.exit: that would end this thread alone
