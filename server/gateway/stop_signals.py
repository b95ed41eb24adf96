"""Ctrl-C and SIGTERM: the first asks for an end, the second is one. Knows nothing that runs."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stop_signals(last_act: Callable[[], None]) -> Generator[asyncio.Event]:
    """An event of the running loop that the first signal sets. At the second one the process ends
    with 128 + its number, after `last_act`; threads that still work would hold a gentler end up.
    """
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    num_signals = 0

    def handle(number: int, _: FrameType | None) -> None:
        nonlocal num_signals
        num_signals += 1
        if num_signals == 1:
            loop.call_soon_threadsafe(asked.set)
            return
        try:
            last_act()
            sys.stderr.flush()  # raises where the signal interrupted a write to it
        finally:
            os._exit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield asked  # signals are the main thread's
        return
    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
