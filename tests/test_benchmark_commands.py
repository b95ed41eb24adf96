"""Benchmarks keep the command that was given, and refuse what they cannot measure."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
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


def test_a_line_of_the_table_of_targets_keeps_its_own_command_and_commit(
    imported: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside lines that another command adds to the same file."""
    table, out = imported("targets_table"), tmp_path / "targets.json"
    graph = SimpleNamespace(module="a graph")

    def row(captured: object, checkpoint: object, target: str, *rest: object) -> dict[str, Any]:
        return {"target": target, "seconds": 1.0, "programs": 1, "kernels": 0, "registers": "-",
                "shared_bytes": "-", "states": {}, "digest": "0" * 64,
                "same_elsewhere": True}  # fmt: skip

    def captured(*given: object) -> SimpleNamespace:
        return graph

    for name in ("open_checkpoint", "capture", "default_options"):
        monkeypatch.setattr(table, name, captured)
    monkeypatch.setattr(table, "row", row)
    commands: dict[str, str] = {}
    for commit, target in (("a" * 40, "cpu"), ("b" * 40 + "-dirty", "rocm-gfx950")):
        given = ["--targets", target, "--out", str(out)]
        monkeypatch.setattr(sys, "argv", ["benchmarks/targets_table.py", *given])
        monkeypatch.setattr(table, "source_commit", lambda commit=commit: commit)
        commands[target] = " ".join(["python", *sys.argv])
        table.main()
    kept = json.loads(out.read_text())
    assert "command" not in kept, "of no line in particular"
    assert {each["target"]: each["command"] for each in kept["targets"]} == commands
    assert [each["commit"][0] for each in kept["targets"]] == ["a", "b"]


def test_a_commit_says_whether_the_sources_are_changed(
    imported: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = imported("targets_table")
    monkeypatch.setattr(table, "ROOT", tmp_path)
    with pytest.raises(SystemExit, match="is no git checkout, and each line says its commit"):
        table.source_commit()
    source, result = tmp_path / "source.py", tmp_path / table.RESULTS / "some.json"
    result.parent.mkdir(parents=True)
    for path in (source, result):
        path.write_text("before")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "all"]):
        subprocess.run([*git, *command], check=True)
    clean = table.source_commit()
    assert len(clean) == 40
    result.write_text("a line more")
    assert table.source_commit() == clean
    source.write_text("behind")
    assert table.source_commit() == f"{clean}-dirty"
