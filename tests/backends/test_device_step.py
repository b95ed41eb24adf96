"""What the host sends and hears of steps whose state a device keeps, kernels interpreted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from interpreting import environment

pytest.importorskip("triton", reason="the extra `aot` is not installed")

SCRIPT = Path(__file__).parent / "interpreted" / "run_device.py"


def run(histories: int, steps: int, *fault: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), str(histories), "0", str(steps), *fault],
        env=environment(),
        capture_output=True,
        text=True,
    )


def play(histories: int, steps: int) -> None:
    done = run(histories, steps)
    assert done.returncode == 0, done.stderr


def test_late_results_are_those_of_their_steps_though_some_break_off() -> None:
    play(4, 7)


@pytest.mark.parametrize("fault", ["masks are shifted by a row", "heads start before masks come"])
def test_a_fault_in_the_way_of_masks_is_noticed(fault: str) -> None:
    done = run(4, 7, fault)
    assert done.returncode == 1, done.stderr
    assert "\nAssertionError: " in done.stderr, done.stderr


@pytest.mark.slow
def test_many_late_results_are_those_of_their_steps() -> None:
    play(80, 10)
