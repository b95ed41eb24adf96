"""The model of a device out of its driver's name, and of the device that is here or is not."""

from __future__ import annotations

import pytest

from lostwax.backends.registry import find_target
from lostwax.backends.runtime.driver import DeviceUnavailable
from lostwax.backends.runtime.sku import sku_here, sku_of


@pytest.mark.parametrize(
    ("name", "sku"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100-PCIe"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA H20", "H20"),
        ("AMD Instinct MI300X", "MI300X"),
        ("x86_64 Intel(R) Xeon(R) Platinum 8488C", "x86_64-Xeon-Platinum-8488C"),
    ],
)
def test_a_model_is_what_people_call_it(name: str, sku: str) -> None:
    assert sku_of(name) == sku


def test_a_device_that_is_not_here_has_no_sku() -> None:
    with pytest.raises(DeviceUnavailable, match="needs an NVIDIA GPU"):
        sku_here(*find_target("cuda-sm100a"))
    assert sku_here(*find_target("null")) == "null"
