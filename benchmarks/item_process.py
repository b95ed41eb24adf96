"""A process that answers lines of text by JSON objects, and is given up where it is late.

What hangs or dies there costs the parent one answer. Knows no item.
"""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Sequence
from queue import Empty, Queue
from typing import Any


class ItemProcess:
    """`first` is what the process says when it is ready; None where an answer is late."""

    def __init__(self, command: Sequence[str], seconds: float) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._lines: Queue[str] = Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self.first = self._answer(seconds)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def _answer(self, seconds: float) -> dict[str, Any] | None:
        try:
            line = self._lines.get(timeout=seconds)
        except Empty:
            return None
        return json.loads(line) if line else None

    def ask(self, item: str, seconds: float) -> dict[str, Any] | None:
        """What the process tells of an item."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{item}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return None
        return self._answer(seconds)

    def end(self) -> None:
        """At once."""
        self._process.kill()
        self._process.wait()
