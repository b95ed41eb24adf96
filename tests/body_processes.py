"""The processes that read large bodies for a server, as the kernel lists them.

A server of another module that died may have left one in the process of the tests: who counts its
own counts those that have begun since.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Literal


def body_processes(server: int | Literal["self"] = "self") -> list[int]:
    """Their pids. A thread or a process that ends while it is looked at has none, or is none."""
    found: list[int] = []
    for task in Path(f"/proc/{server}/task").iterdir():
        children: list[str] = []
        with suppress(FileNotFoundError, ProcessLookupError):
            children = (task / "children").read_text().split()
        for pid in children:
            with suppress(FileNotFoundError, ProcessLookupError):
                if "body_process" in Path(f"/proc/{pid}/cmdline").read_text():
                    found.append(int(pid))
    return found


class Begun:
    """The processes of this process that have begun since this was made."""

    def __init__(self) -> None:
        self._before = frozenset(body_processes())

    @property
    def pids(self) -> list[int]:
        """Those that live."""
        return [pid for pid in body_processes() if pid not in self._before]
