"""Random histories of plans through `DeviceStep` itself, its kernels in Triton's interpreter.

A program of its own because Triton decides at import whether it interprets. Arguments: histories,
first seed, steps of each, and maybe one of `FAULTS`.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).parents[2]))

from derive_trial import PAGE
from device_trial import FAULTS, LAYOUT, DeviceTrial
from plain_run import Sources

from lostwax.backends.cuda.target import CUDA_SM90A
from lostwax.backends.gpu_kernels.interpreter import InterpretingDriver
from lostwax.backends.gpu_kernels.lowerings.step import StepLaunches


def trial(seed: int) -> DeviceTrial:
    """One history."""
    sources = Sources()
    around = StepLaunches(LAYOUT, PAGE, CUDA_SM90A, lambda s: sources.compile(s, Path()))
    driver = InterpretingDriver(CUDA_SM90A, cast(Any, None), {})
    driver.sources = sources.by_binary
    return DeviceTrial(random.Random(seed), around, driver)


def main() -> None:
    """Play the histories."""
    histories, first, steps = map(int, sys.argv[1:4])
    for fault in sys.argv[4:]:
        FAULTS[fault]()
    for seed in range(first, first + histories):
        played = trial(seed)
        played.play(steps)
        played.hear_all()


if __name__ == "__main__":
    main()
