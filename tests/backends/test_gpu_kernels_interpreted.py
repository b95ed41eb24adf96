"""The Triton kernels agree with the fp64 reference when interpreted on the CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from interpreting import environment

pytest.importorskip("triton", reason="the extra `aot` is not installed")

BOUNDS = {"f32": 1e-5, "bf16": 3e-2}


def test_every_kernel_agrees_with_the_reference_in_the_interpreter() -> None:
    script = Path(__file__).parent / "interpreted" / "run_cases.py"
    done = subprocess.run(
        [sys.executable, str(script)],
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    errors: dict[str, float] = json.loads(done.stdout.splitlines()[-1])

    too_large = {
        name: error
        for name, error in errors.items()
        if error > (BOUNDS["bf16"] if name.endswith("bf16") else BOUNDS["f32"])
    }

    assert errors
    assert not too_large
