"""The kernels of the fp8 formats agree with the reference, in bits where rounding is the meaning.

In Triton's interpreter: they round by integers, so that what it gives is what a device gives.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from interpreting import environment

pytest.importorskip("triton", reason="the extra `aot` is not installed")

SCRIPT = Path(__file__).parent / "interpreted" / "run_format_cases.py"


def test_every_format_kernel_agrees_with_the_reference_in_the_interpreter() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT)],
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    assert len(found) == 104
    assert not {name: said for name, said in found.items() if said}
