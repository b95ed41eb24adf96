"""The launch that computes step values, by a host function or a kernel. Places nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lostwax.ir.contract.kernel import CompiledKernel, KernelSource
from lostwax.ir.contract.parameter import Null, Parameter, Pointer
from lostwax.ir.contract.program import HostCall, KernelLaunch, Launch, View
from lostwax.ir.contract.step import STEP_INPUTS, StepOp
from lostwax.ir.contract.step_kernel import Prepared, StepKernel
from lostwax.ir.contract.target import Target

PREPARE = "prepare"
"""What traces and errors call such launches: no lowering's own."""


def step_launch(
    op: Prepared,
    step_input: Callable[[str], View],
    outputs: Mapping[str, View],
    build: Callable[[KernelSource], CompiledKernel],
    target: Target,
) -> Launch:
    """The launch over views of step inputs and of the op's own outputs.

    Raises ValueError for an argument that is neither.
    """
    if isinstance(op, StepOp):
        inputs = tuple(map(step_input, op.inputs))
        return HostCall(
            function=op.function,
            args=(*inputs, *(outputs[name] for name, _, _ in op.outputs)),
            consts=op.consts,
            capturable=op.placement == "device",
            allocates=op.allocates,
            op=PREPARE,
        )
    return _kernel_launch(op, step_input, outputs, build(op.source), target)


def _kernel_launch(
    op: StepKernel,
    step_input: Callable[[str], View],
    outputs: Mapping[str, View],
    compiled: CompiledKernel,
    target: Target,
) -> KernelLaunch:
    parameters: list[Parameter] = []
    for argument in op.arguments:
        if not isinstance(argument, str):
            parameters.append(argument)
        elif argument in outputs:
            parameters.append(Pointer(outputs[argument]))
        elif argument in STEP_INPUTS:
            parameters.append(Pointer(step_input(argument)))
        else:
            raise ValueError(
                f"kernel {op.source.symbol} of a prepare asks for {argument!r}, which is neither a"
                f" step input nor one of its outputs {sorted(outputs)}"
            )
    return KernelLaunch(
        binary=compiled.binary,
        symbol=compiled.symbol,
        grid=op.grid,
        block=(target.wave_size * compiled.num_warps, 1, 1),
        params=(*parameters, *(Null(),) * compiled.trailing_nulls),
        shared_bytes=compiled.shared_bytes,
        op=PREPARE,
    )
