"""A boot notices whatever is wrong with the step's kernels, and runs each of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from step_faults import FAULTS, RESULT_FAULTS, write_mutants

pytest.importorskip("triton", reason="the extra `aot` is not installed")

SCRIPT = Path(__file__).parent / "interpreted" / "run_proof.py"
KERNELS = ("receive", "derive", "derive_draft", "derive_logits", "advance", "send")


def prove(*mutants: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, mutants)],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )


def test_a_boot_runs_every_kernel_of_the_step() -> None:
    done = prove()
    assert done.returncode == 0, done.stderr + done.stdout
    assert {code.split(":")[1] for code in done.stdout.split()} == {*KERNELS}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS | RESULT_FAULTS)
def test_a_fault_in_the_steps_kernels_is_named_at_boot(fault: str, tmp_path: Path) -> None:
    write_mutants(tmp_path, *(FAULTS | RESULT_FAULTS)[fault])
    done = prove(tmp_path)
    assert done.returncode == 1, done.stderr + done.stdout
    assert done.stdout.startswith("the step's kernels are wrong on this device: "), done.stderr
