"""Whether an AMD GPU can be here at all. Imports no torch; which GPU it is, the driver says."""

from __future__ import annotations

from pathlib import Path

from lostwax.backends.runtime.driver import DeviceUnavailable
from lostwax.backends.runtime.torch_build import TorchBuild
from lostwax.ir.contract.target import Target

DRIVER = Path("/dev/kfd")
"""The kernel driver's device, through which every process reaches the GPU."""


def presence(target: Target, torch: TorchBuild) -> None:
    """DeviceUnavailable where torch is no ROCm build, or the GPU's driver is not loaded."""
    if torch.hip is None:
        raise no_device(target, torch.version, f"it is built {torch.built}")
    if not DRIVER.exists():
        raise no_device(target, torch.version, f"there is no {DRIVER}")


def no_device(target: Target, version: str, why: str = "") -> DeviceUnavailable:
    """The error where torch of this version sees no such GPU."""
    reason = f" ({why})" if why else ""
    return DeviceUnavailable(
        f"target {target.name} needs an AMD GPU with its driver and a ROCm build of torch;"
        f" torch {version} sees none here{reason}",
        "compile for --target cpu, or install both",
    )
