"""One AMD GPU: the device that is current, with code objects launched by HIP.

**Never run on a device**: written after the API's documentation and Triton's own launcher; tests
run it over stand-ins of torch and of HIP's library.
"""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch

from lostwax.backends.rocm import BACKEND
from lostwax.backends.rocm.aiter_calls import PACKAGE
from lostwax.backends.rocm.libhip import LibHip
from lostwax.backends.rocm.presence import no_device
from lostwax.backends.runtime.driver import DeviceUnavailable, ReadKernel
from lostwax.backends.runtime.gpu_driver import GpuDriver
from lostwax.backends.runtime.open_device import opening
from lostwax.backends.runtime.require_packages import installed_version
from lostwax.ir.contract.kernel import CompiledKernel
from lostwax.ir.contract.target import Target


class RocmDriver(GpuDriver):
    """Satisfies `runtime.driver.Driver`."""

    def __init__(
        self, target: Target, kernels: ReadKernel, compiled: dict[str, CompiledKernel]
    ) -> None:
        with opening(partial(no_device, target, torch.__version__)):
            device, library = _open_device(target), LibHip()
        super().__init__(device, library, BACKEND.kernels, kernels, compiled)

    @property
    def fingerprint(self) -> str:
        """The GPU's name, what torch was built with, and which AITER is installed, if any."""
        version = installed_version(PACKAGE)
        return super().fingerprint + ("" if version is None else f", {PACKAGE} {version}")


def _open_device(target: Target) -> torch.device:
    """The current HIP device with its context made; DeviceUnavailable if it does not fit."""
    if not torch.version.hip or not torch.cuda.is_available():
        raise no_device(target, torch.__version__)
    device = torch.device("cuda", torch.cuda.current_device())
    described = cast("Any", torch.cuda.get_device_properties(device))  # untyped in torch
    arch = str(described.gcnArchName).split(":")[0]  # such as gfx942:sramecc+:xnack-
    if target.arch != arch:
        raise DeviceUnavailable(
            f"target {target.name} is compiled for {target.arch}, this"
            f" {torch.cuda.get_device_name(device)} is {arch}: compile for a target of that arch"
        )
    torch.zeros(1, device=device)  # makes the device's context current
    return device
