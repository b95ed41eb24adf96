"""Cores that a process may use, by affinity and by the quotas of both control group versions."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from lostwax.backends.runtime import usable_cores as module
from lostwax.backends.runtime.usable_cores import usable_cores, usable_threads


@pytest.fixture
def many_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))  # pyright: ignore[reportUnknownLambdaType]


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.usefixtures("many_cores")
@pytest.mark.parametrize(
    ("own", "files", "cores"),
    [
        ("0::/\n", {}, 16),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 16),
        ("0::/\n", {"cpu.max": "250000 100000\n"}, 3),
        ("0::/\n", {"cpu.max": "1000 100000\n"}, 1),
        ("0::/a/b\n", {"a/cpu.max": "200000 100000\n", "a/b/cpu.max": "max 100000\n"}, 2),
        ("0::/a/b\n", {"a/cpu.max": "max 100000\n", "a/b/cpu.max": "400000 100000\n"}, 4),
        ("0::/\n", {"cpu.max": "x 0\n"}, 16),
        ("0::/\n", {"cpu.max": ""}, 16),
        (
            "3:cpu,cpuacct:/host/path\n0::/\n",
            {"cpu,cpuacct/cpu.cfs_quota_us": "300000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
            3,
        ),
        (
            "3:cpu:/a\n",
            {"cpu/a/cpu.cfs_quota_us": "-1\n", "cpu/a/cpu.cfs_period_us": "100000\n"},
            16,
        ),
        ("2:memory:/\nnonsense\n", {"cpu.max": "100000 100000"}, 16),
    ],
)
def test_the_tightest_quota_holds(
    tmp_path: Path, own: str, files: dict[str, str], cores: int
) -> None:
    _write(tmp_path / "own", own)
    for name, text in files.items():
        _write(tmp_path / "groups" / name, text)
    assert usable_cores(tmp_path / "groups", tmp_path / "own") == cores


def test_without_control_groups_the_affinity_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 7})  # pyright: ignore[reportUnknownLambdaType]
    assert usable_cores(tmp_path, tmp_path / "none") == 2


@pytest.mark.usefixtures("many_cores")
@pytest.mark.parametrize(
    ("told", "threads"), [("3", 3), ("4,2", 4), ("99", 16), ("", 16), ("0", 16), ("many", 16)]
)
def test_openmps_variable_bounds_threads(
    monkeypatch: pytest.MonkeyPatch, told: str, threads: int
) -> None:
    monkeypatch.setattr(module, "_quotas", lambda *_: [math.inf])  # pyright: ignore[reportUnknownLambdaType]
    monkeypatch.setenv("OMP_NUM_THREADS", told)
    assert usable_threads() == threads
