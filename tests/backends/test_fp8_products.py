"""The fp8 products agree with the reference in Triton's interpreter, and faults in them do not.

`fp8_faults.py` has the faults.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from fp8_faults import FAULTS, write_mutants
from interpreting import environment

pytest.importorskip("triton", reason="the extra `aot` is not installed")

SCRIPT = Path(__file__).parent / "interpreted" / "run_fp8_cases.py"
BOUNDS = {
    "fp8 linear": 2e-3, "fp8 gate and up": 4e-3, "fp8 projections": 4e-3,
    "fp8 experts of scaled rows": 1e-6, "fp8 experts": 5e-4, "fp8 moe": 3e-3,
    "fp8 mlp": 4e-3,
    "fp8 cached projections": 5e-3, "fp8 queries": 5e-3,
    "fp8 attention's": 5e-3,
    "fp8 attend all, quantised": 3e-2, "fp8 attend": 8e-3,
}  # fmt: skip
"""By how a case's name begins: outputs are bf16, of experts f32. The interpreter cuts attention's
latents to bf16, which is a step of fp8 in some values."""


def run_cases(*mutants: Path, target: str = "cuda-sm90a") -> subprocess.CompletedProcess[str]:
    """Over the kernels, or what stands in for them, with a target's facts and encoding of fp8."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", str(SCRIPT), *map(str, mutants), "--target", target],
        env=environment(),
        capture_output=True,
        text=True,
    )


def wrong(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Cases beyond their bounds."""
    assert done.returncode == 0, done.stderr
    errors: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    assert len(errors) >= 10
    bounds = {n: next(b for begin, b in BOUNDS.items() if n.startswith(begin)) for n in errors}
    return [name for name, error in errors.items() if not error <= bounds[name]]


@pytest.mark.slow
@pytest.mark.parametrize("target", ["cuda-sm90a", "rocm-gfx942", "rocm-gfx950"])
def test_every_form_agrees_with_the_reference(target: str) -> None:
    """By tensor maps, and through pointers in either encoding of fp8."""
    assert wrong(run_cases(target=target)) == []


@pytest.mark.slow
def test_a_copy_without_a_fault_stands_in_for_the_kernels(tmp_path: Path) -> None:
    write_mutants(tmp_path)
    assert wrong(run_cases(tmp_path)) == []


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_kernels_is_noticed(fault: str, tmp_path: Path) -> None:
    write_mutants(tmp_path, *FAULTS[fault])
    done = run_cases(tmp_path)
    if "counter" in fault:
        assert "AssertionError: the zeroed workspace was not left zero" in done.stderr
    else:
        assert wrong(done)
