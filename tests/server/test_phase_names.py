"""The phases that a start is timed by are those that an engine names."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from lostwax.server.gateway.start_clock import ESTIMATE_S, FIRST

ROOT = Path(__file__).parents[2]
NAMERS = ("backends/runtime/load.py", "server/engine/process.py")


def _named(path: Path) -> Iterator[str]:
    """What is given to `phases` or `begin` as a literal."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Call(func=ast.Name(id="phases" | "begin"), args=[ast.Constant(value=str(n))]):
                yield n
            case _:
                pass


def test_every_phase_of_a_start_has_an_estimate_and_none_is_of_another_name() -> None:
    named = {name for each in NAMERS for name in _named(ROOT / each)}
    assert named | {FIRST} == set(ESTIMATE_S)
