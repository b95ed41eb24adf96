"""What the host sends and hears of steps whose state a device keeps, kernels interpreted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="the extra `aot` is not installed")

SCRIPT = Path(__file__).parent / "interpreted" / "run_device.py"


def play(histories: int, steps: int) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(histories), "0", str(steps)],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_late_results_are_those_of_their_steps_though_some_break_off() -> None:
    play(4, 7)


@pytest.mark.slow
def test_many_late_results_are_those_of_their_steps() -> None:
    play(80, 10)
