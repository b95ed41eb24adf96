"""Kernels of AMD's GPUs agree with the reference in Triton's interpreter, and faults do not.

Never run on an AMD GPU. `rocm_faults.py` has the faults, each with the case that shows it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from interpreting import environment
from rocm_faults import EACH, FAULTS, SHOWN_BY, write_mutants

pytest.importorskip("triton", reason="the extra `aot` is not installed")

SCRIPT = Path(__file__).parent / "interpreted" / "run_rocm_cases.py"
BOUNDS = {"bf16": 8e-3, "f32": 1e-6}
"""By how a case's name ends; of logits f32's, of selections nothing may differ."""
FEW = ("gfx942 topk 40 of 2", "gfx942 attend fp8_656 f32", "gfx950 attend fp8_576 bf16")


def run_cases(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Over the kernels, or what stands in for them."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", str(SCRIPT), *arguments],
        env=environment(),
        capture_output=True,
        text=True,
    )


def wrong(done: subprocess.CompletedProcess[str]) -> dict[str, float]:
    """Cases beyond their bounds."""
    assert done.returncode == 0, done.stderr
    errors: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    assert errors
    return {n: e for n, e in errors.items() if not e <= BOUNDS.get(n.split()[-1], BOUNDS["f32"])}


def test_some_of_each_agree_with_the_reference() -> None:
    assert wrong(run_cases("--cases", *FEW)) == {}


@pytest.mark.slow
def test_all_agree_with_the_reference() -> None:
    assert wrong(run_cases()) == {}


@pytest.mark.slow
def test_a_copy_without_a_fault_stands_in_for_the_kernels(tmp_path: Path) -> None:
    write_mutants(tmp_path)
    assert wrong(run_cases(str(tmp_path), "--cases", *FEW)) == {}


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "arch"), EACH, ids=map(" on ".join, EACH))
def test_a_fault_in_the_kernels_is_noticed_and_named(fault: str, arch: str, tmp_path: Path) -> None:
    """The case that fails is of the op whose kernel is wrong; one of another op does not."""
    write_mutants(tmp_path, *FAULTS[fault])
    shown = f"{arch} {SHOWN_BY[fault][0]}"
    other = f"{arch} topk 3 of 3" if " topk " not in shown else f"{arch} attend fp8_576 bf16"
    assert {*wrong(run_cases(str(tmp_path), "--cases", shown, other))} == {shown}


def test_every_fault_has_a_case_on_each_architecture_that_can_have_it() -> None:
    assert set(FAULTS) == set(SHOWN_BY)
    archs = [arch for fault, arch in EACH if not fault.startswith("codes of")]
    assert archs.count("gfx942") == archs.count("gfx950") == len(FAULTS) - 2
    assert {arch for fault, arch in EACH if fault.startswith("codes of")} == {"gfx942", "gfx950"}
