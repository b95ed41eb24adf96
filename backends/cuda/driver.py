"""One NVIDIA GPU: the device that is current, with cubins launched by the driver API."""

from __future__ import annotations

from functools import partial

import torch

from lostwax.backends.cuda import BACKEND
from lostwax.backends.cuda.libcuda import LibCuda
from lostwax.backends.cuda.presence import no_device
from lostwax.backends.runtime.driver import DeviceUnavailable, ReadKernel
from lostwax.backends.runtime.gpu_driver import GpuDriver
from lostwax.backends.runtime.open_device import opening
from lostwax.ir.contract.kernel import CompiledKernel
from lostwax.ir.contract.target import Target


class CudaDriver(GpuDriver):
    """Satisfies `runtime.driver.Driver`."""

    def __init__(
        self, target: Target, kernels: ReadKernel, compiled: dict[str, CompiledKernel]
    ) -> None:
        with opening(partial(no_device, target, torch.__version__)):
            device, library = _open_device(target), LibCuda()
        super().__init__(device, library, BACKEND.kernels, kernels, compiled)


def _open_device(target: Target) -> torch.device:
    """The current CUDA device with its context made; DeviceUnavailable if it does not fit."""
    if torch.version.hip or not torch.cuda.is_available():
        raise no_device(target, torch.__version__)
    device = torch.device("cuda", torch.cuda.current_device())
    major, minor = torch.cuda.get_device_capability(device)
    arch = f"sm_{major}{minor}"
    if target.arch.rstrip("af") != arch:
        raise DeviceUnavailable(
            f"target {target.name} is compiled for {target.arch}, this"
            f" {torch.cuda.get_device_name(device)} is {arch}: compile for a target of that arch"
        )
    torch.zeros(1, device=device)  # creates the primary context and makes it current
    return device
