"""Runs a script once a rank. Knows no script."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def run_on_two_ranks(script: Path, *args: str) -> None:
    """Run the script once a rank; a rank that is alone gives up after a while."""
    ranks = [
        subprocess.Popen(
            [sys.executable, str(script), str(rank), "2", *args],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for rank in range(2)
    ]
    for rank in ranks:
        _, told = rank.communicate(timeout=300)
        assert rank.returncode == 0, told[-4000:]
