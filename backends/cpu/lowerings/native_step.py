"""Launches of the step's native kernels, which stand around the layers of every program."""

from __future__ import annotations

from collections.abc import Mapping

from lostwax.backends.cpu.library import libraries
from lostwax.backends.gpu_kernels.lowerings.launches import Argument, i32
from lostwax.backends.gpu_kernels.lowerings.step import CUTS, Build, StepLaunches
from lostwax.ir.contract.kernel import KernelSource
from lostwax.ir.contract.parameter import Pointer, Scalar
from lostwax.ir.contract.program import KernelLaunch, View
from lostwax.ir.contract.step_layout import STEP_OP, StepLayout
from lostwax.ir.contract.target import Target


class NativeStepLaunches(StepLaunches):
    """The same launches as on GPUs, with what those kernels are compiled for as numbers behind the
    arguments, and without what says how they are cut; then how many rows the state and a step have
    at most, below which kernels hold what a plan says."""

    def _launch(
        self,
        symbol: str,
        arguments: Mapping[str, Argument],
        constants: Mapping[str, int],
        programs: tuple[int, int],
        num_warps: int = 1,
    ) -> KernelLaunch:
        numbers = {name: i32(value) for name, value in constants.items() if name not in CUTS}
        most = i32(self._layout.max_reqs + 1), i32(self._layout.max_rows)
        kernel = self._build(
            KernelSource(language="cpp", path="native.cpp", symbol=f"step_{symbol}")
        )
        return KernelLaunch(
            binary=kernel.binary,
            symbol=kernel.symbol,
            grid=(1, 1, 1),
            block=(1, 1, 1),
            params=tuple(map(_parameter, (*arguments.values(), *numbers.values(), *most))),
            shared_bytes=0,
            op=f"{STEP_OP}{symbol}",
        )


def _parameter(argument: Argument) -> Pointer | Scalar:
    assert isinstance(argument, View | Scalar)
    return Pointer(argument) if isinstance(argument, View) else argument


def native_step(
    layout: StepLayout, page_tokens: int, target: Target, build: Build
) -> NativeStepLaunches | None:
    """What makes them for one artifact; None for a processor without a library of native kernels,
    where the host derives inputs in numpy."""
    if target.arch not in libraries():
        return None
    return NativeStepLaunches(layout, page_tokens, target, build)
