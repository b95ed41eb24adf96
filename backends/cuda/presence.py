"""Whether an NVIDIA GPU can be here at all. Imports no torch; which GPU it is, the driver says."""

from __future__ import annotations

import ctypes

from lostwax.backends.runtime.driver import DeviceUnavailable
from lostwax.backends.runtime.torch_build import TorchBuild
from lostwax.ir.contract.target import Target


def presence(target: Target, torch: TorchBuild) -> None:
    """DeviceUnavailable where torch is no CUDA build, or the GPU's driver is not installed."""
    if torch.cuda is None:
        raise no_device(target, torch.version, f"it is built {torch.built}")
    _require_driver(target, torch)


def no_device(target: Target, version: str, why: str = "") -> DeviceUnavailable:
    """The error where torch of this version sees no such GPU."""
    reason = f" ({why})" if why else ""
    return DeviceUnavailable(
        f"target {target.name} needs an NVIDIA GPU with its driver and a CUDA build of torch;"
        f" torch {version} sees none here{reason}",
        "compile for --target cpu, or install both",
    )


def _require_driver(target: Target, torch: TorchBuild) -> None:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise no_device(target, torch.version, str(error)) from error
