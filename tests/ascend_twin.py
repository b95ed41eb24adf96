"""The Ascend target where there is no NPU: its lowerings and host functions over CPU twins.

What runs so is interpreted. A target of another name, so that the real one is never served so.
"""

from __future__ import annotations

import msgspec

from lostwax.backends.ascend import BACKEND
from lostwax.backends.ascend import target as ascend
from lostwax.backends.ascend.twins.register import register
from lostwax.backends.registry import Backend
from lostwax.backends.runtime.driver import ReadKernel
from lostwax.backends.runtime.host_driver import HostDriver
from lostwax.ir.contract.kernel import CompiledKernel
from lostwax.ir.contract.target import Target

TARGETS = tuple(
    msgspec.structs.replace(
        target, name=target.name.replace("ascend", "ascend-twin"), backend="ascend_twin"
    )
    for target in ascend.TARGETS
)
TWIN_TARGET = TARGETS[0]
TWIN = Backend(
    name="ascend_twin",
    targets="ascend_twin:TARGETS",
    lowerings=BACKEND.lowerings,
    driver="ascend_twin:TwinDriver",
    compiler=None,
    kernels=BACKEND.kernels,
    twins=BACKEND.twins,
    written_for=BACKEND.written_for,
    preflight=BACKEND.preflight,
)


class TwinDriver(HostDriver):
    """Satisfies `runtime.driver.Driver` on the CPU."""

    packages = BACKEND.kernels

    def __init__(
        self, target: Target, kernels: ReadKernel, compiled: dict[str, CompiledKernel]
    ) -> None:
        super().__init__(target, kernels, compiled)
        register()
