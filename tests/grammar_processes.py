"""Which processes follow grammars, for tests that end them."""

from __future__ import annotations

import re
from pathlib import Path

from lostwax.server.grammar.grammar import Grammar
from lostwax.server.grammar.grammars import Grammars


def process_of(grammars: Grammars, grammar: Grammar) -> int:
    """The pid of what follows a grammar."""
    info = Path(f"/proc/self/fdinfo/{grammars.process(grammar).pidfd}").read_text()
    found = re.search(r"^Pid:\s*(\d+)$", info, re.MULTILINE)
    assert found is not None
    return int(found[1])
