"""Random histories of plans over the step's kernels in Triton's interpreter, against the oracle.

A program of its own because Triton decides at import whether it interprets. Arguments: histories,
first seed, steps of each, and maybe a folder whose package `mutants` stands in for the kernels. A
kernel that differs from the oracle ends it with an AssertionError.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import msgspec
from derive_trial import PAGE
from plain_run import Sources
from step_trial import LAYOUT, Device, StepTrial

from lostwax.backends.cuda.target import CUDA_SM90A
from lostwax.backends.gpu_kernels.interpreter import PACKAGE, bind_interpreted
from lostwax.backends.gpu_kernels.lowerings.step import StepLaunches
from lostwax.backends.runtime.driver import Resolve, Thunk
from lostwax.ir.contract.program import KernelLaunch


def interpreted(package: str) -> Device:
    """The kernels of a package that has a module `step`."""
    sources = Sources()

    def bind(launch: KernelLaunch, resolve: Resolve) -> Thunk:
        source = sources.by_binary[launch.binary]
        source = msgspec.structs.replace(source, path=source.path.replace(PACKAGE, package))
        return bind_interpreted(source, launch, resolve, (package,))

    around = StepLaunches(LAYOUT, PAGE, CUDA_SM90A, lambda s: sources.compile(s, Path()))
    return Device(around, bind)


def main() -> None:
    """Play the histories."""
    histories, first, steps = map(int, sys.argv[1:4])
    sys.path[:0] = sys.argv[4:]
    for seed in range(first, first + histories):
        device = interpreted("mutants" if sys.argv[4:] else PACKAGE)
        StepTrial(random.Random(seed), device).play(steps)


if __name__ == "__main__":
    main()
