"""The SKU: which model of device measures or runs. A `Target` describes an architecture, which
several models have (H100, H200 and H20 are all sm_90a): a time measured on one is none of another.

It comes from the driver's name of the device that is here, or from the user (`compile --sku`).
"""

from __future__ import annotations

import re

from lostwax.backends.registry import Backend
from lostwax.backends.runtime.driver import Driver, no_kernels
from lostwax.ir.contract.target import Target

_MAKERS = frozenset({"NVIDIA", "AMD", "Instinct", "Intel"})
_CALLED = {"H100-80GB-HBM3": "H100"}
"""What a driver's name has more than people's: other H100s (PCIe, NVL) keep their suffix."""


def sku_of(device_name: str) -> str:
    """The SKU behind a device's name as its driver gives it: `NVIDIA H200` is `H200`."""
    words = re.findall(r"[A-Za-z0-9_.+-]+", re.sub(r"\((R|TM)\)", "", device_name))
    name = "-".join(word for word in words if word not in _MAKERS)
    return _CALLED.get(name, name)


def sku_here(backend: Backend, target: Target) -> str:
    """The SKU of this machine's device. Raises DeviceUnavailable, which says why it is not here."""
    driver: Driver = backend.load(backend.driver)(target, no_kernels, {})
    return sku_of(driver.device_name)
