"""Of unfinished runs in the cache the newest sixteen are kept, the one that begins among them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from lostwax.cli.eval_results import FOLDER, MAX_KEPT, Results
from lostwax.evals.task import Sampling, Task


def _open(cache: Path, seed: int = 0) -> Path:
    """The folder of a run that begins or goes on."""
    none: Any = None  # nothing is graded
    task = Task("task", (), Sampling(), none)
    results = Results(None, cache)
    results.open([task], [task.sampling], {"seed": seed})
    assert results.folder is not None
    return results.folder


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Unfinished runs, one more than are kept beside a new one; the first was begun first."""
    found = [tmp_path / FOLDER / f"run-{n:02}" for n in range(MAX_KEPT)]
    for age, run in enumerate(reversed(found)):
        run.mkdir(parents=True)
        (run / "samples.jsonl").write_text("{}\n")
        os.utime(run, (10_000 - age, 10_000 - age))
    (tmp_path / FOLDER / "note").write_text("a file is no run")
    return found


def _kept(cache: Path) -> set[str]:
    return {path.name for path in (cache / FOLDER).iterdir()} - {"note"}


def test_the_run_that_was_not_gone_on_with_for_longest_goes_first(
    runs: list[Path], tmp_path: Path
) -> None:
    new = _open(tmp_path)
    assert _kept(tmp_path) == {run.name for run in runs[1:]} | {new.name}
    assert len(_kept(tmp_path)) == MAX_KEPT == 16
    assert (tmp_path / FOLDER / "note").exists()
    assert all((run / "samples.jsonl").exists() for run in runs[1:])


def test_going_on_counts_as_new(runs: list[Path], tmp_path: Path) -> None:
    first = _open(tmp_path)
    os.utime(first, (1, 1))
    assert _open(tmp_path) == first
    second = _open(tmp_path, seed=1)
    assert _kept(tmp_path) == {run.name for run in runs[2:]} | {first.name, second.name}


def test_a_run_that_begins_is_kept_whatever_the_clock_says(
    runs: list[Path], tmp_path: Path
) -> None:
    for run in runs:
        os.utime(run, (1 << 33, 1 << 33))  # written by a clock that was ahead
    assert _open(tmp_path).is_dir()
    assert len(_kept(tmp_path)) == MAX_KEPT


def test_as_many_as_are_kept_all_stay(runs: list[Path], tmp_path: Path) -> None:
    (runs[5] / "samples.jsonl").unlink()
    runs[5].rmdir()
    new = _open(tmp_path)
    assert _kept(tmp_path) == {run.name for n, run in enumerate(runs) if n != 5} | {new.name}
