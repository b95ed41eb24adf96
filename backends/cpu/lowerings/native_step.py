"""Launches of the step's native kernels, which stand around the layers of every program."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import structs

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
    arguments, without what says how they are cut, and then the layout's sizes."""

    def _launch(
        self,
        symbol: str,
        arguments: Mapping[str, Argument],
        constants: Mapping[str, int],
        programs: tuple[int, int],
        num_warps: int = 1,
    ) -> KernelLaunch:
        own = self._layout
        numbers = {name: value for name, value in constants.items() if name not in CUTS}
        numbers |= {"max_reqs": own.max_reqs, "max_rows": own.max_rows}
        given = dict(arguments)
        if "plan" in given:  # all of it is written, not the header alone
            given["plan"] = structs.replace(own.header, shape=(own.plan_bytes // 4,))
        kernel = self._build(
            KernelSource(language="cpp", path="native.cpp", symbol=f"step_{symbol}")
        )
        return KernelLaunch(
            binary=kernel.binary,
            symbol=kernel.symbol,
            grid=(1, 1, 1),
            block=(1, 1, 1),
            params=tuple(map(_parameter, (*given.values(), *map(i32, numbers.values())))),
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
