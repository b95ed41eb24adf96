"""Whether an Ascend NPU can be here at all. Imports no torch; which NPU it is, the driver says."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from lostwax.backends.runtime.driver import DeviceUnavailable
from lostwax.backends.runtime.torch_build import TorchBuild
from lostwax.ir.contract.target import Target

DRIVER = Path("/dev/davinci_manager")
"""The kernel driver's device, through which every process reaches the NPUs."""


def presence(target: Target, torch: TorchBuild) -> None:
    """DeviceUnavailable where torch_npu is not installed, or the NPU's driver is not loaded."""
    if find_spec("torch_npu") is None:
        raise no_device(target, torch.version, "torch_npu is not installed")
    if not DRIVER.exists():
        raise no_device(target, torch.version, f"there is no {DRIVER}")


def no_device(target: Target, version: str, why: str = "") -> DeviceUnavailable:
    """The error where torch of this version reaches no such NPU."""
    reason = f" ({why})" if why else ""
    return DeviceUnavailable(
        f"target {target.name} needs an Ascend NPU with its driver, CANN and torch_npu;"
        f" torch {version} reaches none here{reason}",
        "compile for --target cpu, or install them",
    )
