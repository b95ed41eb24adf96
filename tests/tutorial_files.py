"""Puts a tutorial's small files where CONTRIBUTING says that they go, for one test.

Knows no tutorial. The files themselves stay below tests/tutorial.
"""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

TUTORIAL = Path(__file__).parent / "tutorial"
MOST_LINES = 60


def install(monkeypatch: pytest.MonkeyPatch, file: str, module: str) -> object:
    """Import a file below tests/tutorial as the module that it would be in the tree."""
    spec = spec_from_file_location(module, TUTORIAL / file)
    assert spec is not None
    assert spec.loader is not None
    loaded = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, module, loaded)
    spec.loader.exec_module(loaded)
    return loaded


def lines_of(folder: str) -> int:
    """Lines of a tutorial's files, blank ones left out."""
    files = (TUTORIAL / folder).rglob("*.py")
    return sum(1 for f in files for line in f.read_text().splitlines() if line.strip())
