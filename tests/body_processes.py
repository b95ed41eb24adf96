"""The processes that read large bodies for a server, as the kernel lists them."""

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
