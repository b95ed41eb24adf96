"""Which processes follow grammars, for tests that end them."""

from __future__ import annotations

import re
import time
from pathlib import Path

from lostwax.server.grammar.grammar import Grammar
from lostwax.server.grammar.grammars import Grammars


def process_of(grammars: Grammars, grammar: Grammar) -> int:
    """The pid of what follows a grammar."""
    info = Path(f"/proc/self/fdinfo/{grammars.process(grammar).pidfd}").read_text()
    found = re.search(r"^Pid:\s*(\d+)$", info, re.MULTILINE)
    assert found is not None
    return int(found[1])


def require_end(pid: int) -> None:
    """A process ends soon. One that nobody has asked how it ended is over, too."""
    until = time.monotonic() + 10
    while _lives(pid):
        assert time.monotonic() < until, f"{pid} does not end"
        time.sleep(0.01)


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"
