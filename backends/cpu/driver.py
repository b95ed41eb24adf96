"""Runs programs on the CPU that they were compiled for. Knows no launch: the host driver does."""

from __future__ import annotations

import platform

from lostwax.backends.cpu import BACKEND
from lostwax.backends.runtime.driver import DeviceUnavailable, ReadKernel
from lostwax.backends.runtime.host_driver import HostDriver
from lostwax.ir.contract.kernel import CompiledKernel
from lostwax.ir.contract.target import Target

# What platform.machine() says, by the beginning of a target's arch.
MACHINES = {"x86-64": ("x86_64", "amd64"), "armv8": ("aarch64", "arm64")}


class CpuDriver(HostDriver):
    """Satisfies `lostwax.backends.runtime.driver.Driver`."""

    packages = BACKEND.kernels

    def __init__(
        self, target: Target, kernels: ReadKernel, compiled: dict[str, CompiledKernel]
    ) -> None:
        super().__init__(target, kernels, compiled)
        here = platform.machine().lower()
        wanted = next((m for a, m in MACHINES.items() if target.arch.startswith(a)), ())
        if here not in wanted:
            needs = " or ".join(wanted) or target.arch
            raise DeviceUnavailable(
                f"target {target.name} needs {needs}, this machine is {here};"
                " compile for the target of this machine"
            )
