"""Benchmarks keep the command that was given, and refuse what they cannot measure."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from small_fixtures import Compiled

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def imported() -> Iterator[Any]:
    """Imports a module of the folder, which is no package."""
    sys.path.insert(0, str(BENCHMARKS))
    yield import_module
    sys.path.remove(str(BENCHMARKS))


def test_no_benchmark_writes_a_command_that_was_not_given() -> None:
    kept = [
        f"{file.name}: {line.strip()}"
        for file in sorted(BENCHMARKS.glob("*.py"))
        for line in file.read_text(encoding="utf-8").splitlines()
        if '"command":' in line
    ]
    assert len(kept) > 15
    assert [line for line in kept if "*sys.argv[1:]" not in line] == [], "what ran is in sys.argv"


def test_drafts_are_verified_of_an_artifact_that_has_some(
    imported: Any,
    small_artifact: Compiled,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Before anything is drawn on a device."""
    given = [str(small_artifact.artifact), "--verify", "1@64", "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["full_step.py", *given])
    with pytest.raises(SystemExit):
        imported("full_step").main()
    said = capsys.readouterr().err
    assert f"{small_artifact.artifact} was compiled without drafts and has none to verify;" in said
