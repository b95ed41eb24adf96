"""How a program ends that the kernel may end, for tests of what a process may take."""

from __future__ import annotations

import os
import subprocess
import sys

_PROGRAM_S = 30.0


def program_end(program: str) -> tuple[int, str]:
    """The status that it ends with, below 0 a signal's, and what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=_PROGRAM_S,
        check=False,
    )
    assert not done.stderr, done.stderr
    return done.returncode, done.stdout
