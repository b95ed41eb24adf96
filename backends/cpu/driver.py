"""Runs programs on the CPU that they were compiled for. Knows no launch: the host driver does."""

from __future__ import annotations

from lostwax.backends.cpu import BACKEND
from lostwax.backends.cpu.heap import keep_freed_memory
from lostwax.backends.cpu.presence import presence
from lostwax.backends.runtime.driver import ReadKernel
from lostwax.backends.runtime.host_driver import HostDriver
from lostwax.backends.runtime.torch_build import torch_build
from lostwax.ir.contract.kernel import CompiledKernel
from lostwax.ir.contract.target import Target


class CpuDriver(HostDriver):
    """Satisfies `lostwax.backends.runtime.driver.Driver`."""

    packages = BACKEND.kernels

    def __init__(
        self, target: Target, kernels: ReadKernel, compiled: dict[str, CompiledKernel]
    ) -> None:
        super().__init__(target, kernels, compiled)
        presence(target, torch_build())
        keep_freed_memory()
