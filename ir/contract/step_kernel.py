"""Per-step metadata that a kernel makes: a request to launch it once a step. Compiles nothing."""

from __future__ import annotations

import msgspec

from lostwax.ir.contract.kernel import KernelSource
from lostwax.ir.contract.parameter import Scalar
from lostwax.ir.contract.step import StepOp


class StepKernel(msgspec.Struct, frozen=True, kw_only=True):
    """A kernel that a lowering wants launched once a step, before all layers.

    Equal ones are launched once. `arguments` are in the kernel's order: a name of `outputs`, else
    of a step input, for a pointer to it; scalars by value. `outputs` are (name, dtype, shape) with
    concrete shapes, placed in the arena. A block has `source.num_warps` waves. `us` is
    microseconds once a step, launch included, as they were timed; None leaves them to an estimate.
    """

    source: KernelSource
    arguments: tuple[str | Scalar, ...]
    outputs: tuple[tuple[str, str, tuple[int, ...]], ...]
    grid: tuple[int, int, int]
    us: float | None = None


Prepared = StepOp | StepKernel
"""What a lowering may ask for once a step: a host function or a kernel."""
