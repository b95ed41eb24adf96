"""Whether this machine's processor is the target's. Imports no torch."""

from __future__ import annotations

import platform

from lostwax.backends.runtime.driver import DeviceUnavailable
from lostwax.backends.runtime.torch_build import TorchBuild
from lostwax.ir.contract.target import Target

# What platform.machine() says, by the beginning of a target's arch.
MACHINES = {"x86-64": ("x86_64", "amd64"), "armv8": ("aarch64", "arm64")}


def presence(target: Target, torch: TorchBuild) -> str:
    """Where it runs; DeviceUnavailable on another processor. Any build of torch will do."""
    del torch
    require_processor(target)
    return "on cpu"


def require_processor(target: Target) -> None:
    """Raise DeviceUnavailable where the processor is of another architecture."""
    here = platform.machine().lower()
    wanted = next((m for a, m in MACHINES.items() if target.arch.startswith(a)), ())
    if here not in wanted:
        needs = " or ".join(wanted) or target.arch
        raise DeviceUnavailable(
            f"target {target.name} needs {needs}, this machine is {here};"
            " compile for the target of this machine"
        )
