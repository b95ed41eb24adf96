"""Ragged steps of expanded attention to a selection over the kernels in a folder, on the CPU.

python run_masked_mha.py FOLDER KERNELS
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from mha_twin import Step, attend, require_right
from twin_launches import Twins

TOP = 150
"""More than the threads of a row that make its bits; fewer than most rows see."""


def main(folder: Path, kernels: Path) -> None:
    """AssertionError, or the end of the process, where the kernels are wrong."""
    twins = Twins(folder, kernels)
    step = Step([(0, 1), (190, 70), (0, 0), (257, 3), (0, 40)], "fp8_576", reqs=7, top=TOP)
    last = step.real - 1
    step.selection[1, 5] = step.selection[1, 4]  # a position twice
    step.selection[2] = step.selection[2, ::-1]
    step.selection[3, 7] = -1  # a hole
    step.selection[last] = -1
    got = attend(step, twins, folder)
    require_right(step, got)
    assert np.array_equal(got[last], np.zeros_like(got[last])), "a row with nothing selected"
    # A tile of which most rows lie behind the bucket's last one, whose bits end the workspace.
    step = Step([(0, 130), (0, 5)], "fp8_576", reqs=7, top=TOP)
    require_right(step, attend(step, twins, folder))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
