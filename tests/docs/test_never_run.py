"""What README.md says of hardware that was never there: in one section, and true of the tree."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from lostwax.backends.registry import backends
from lostwax.containers.describe import containers

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TITLE = "## What never ran, and what was checked instead\n"
NEVER = ("rocm", "ascend")
"""Backends whose devices nobody had."""


def section() -> str:
    (found,) = re.findall(rf"^{re.escape(TITLE)}(.*?)^## ", README, re.M | re.S)
    return found


def newest(pattern: str) -> Any:
    path = max((ROOT / "benchmarks" / "results").glob(pattern))
    return json.loads(path.read_text(encoding="utf-8"))


def test_it_says_plainly_that_nothing_ran() -> None:
    text = section()
    assert text.lstrip().startswith("Nothing was run on AMD or Ascend hardware,")
    assert "No ROCm, Blackwell or Ascend device was ever used." in README
    for container in containers().values():
        if container.target.startswith(NEVER):
            assert re.search(r"No (AMD GPU|Ascend NPU) has run any", container.checked)


@pytest.mark.parametrize("backend", NEVER)
def test_a_target_s_own_page_says_it_too(backend: str) -> None:
    page = (ROOT / "backends" / backend / "README.md").read_text(encoding="utf-8")
    assert re.search(r"\*\*Nothing here has run on (a|an Ascend) device\.\*\*", page)


def test_what_it_names_as_the_check_is_there() -> None:
    text = section()
    lanes = (ROOT / ".ci" / "slow").read_text(encoding="utf-8")
    named = re.findall(r"`([^`]+)`", text)
    paths = [name.split()[-1] for name in named if "/" in name and not name.startswith(".ci/slow")]
    assert len(paths) > 8
    assert [path for path in paths if not (ROOT / path).exists()] == []
    for lane in re.findall(r"`\.ci/slow (\w+)`", text):
        assert f"  {lane})" in lanes


def test_no_result_says_that_a_device_ran_which_nobody_had() -> None:
    table = newest("*-targets.json")["targets"]
    known = {t.name for b in backends().values() for t in b.load(b.targets)}
    listed = {row["target"] for row in table}
    assert listed <= known
    assert any(name.startswith(NEVER) for name in listed)
    for row in table:
        assert row["same_elsewhere"]
        assert row["command"].startswith("python benchmarks/targets_table.py --targets ")
        assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", row["commit"])
        assert set(row["states"]) <= {"executed", "interpreted", "compiled"}
        assert ("executed" in row["states"]) == (row["target"] == "cpu"), "made without a GPU"
