"""Runs programs on the CPU: torch tensors as memory, host calls only, walked in order."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path

import torch

from lostwax.backends.cpu import BACKEND
from lostwax.backends.runtime.driver import DeviceUnavailable, Resolve, Thunk
from lostwax.backends.runtime.host_call import bind_host_call
from lostwax.ir.contract.kernel import CompiledKernel
from lostwax.ir.contract.program import HostCall, Launch
from lostwax.ir.contract.target import Target

ALIGNMENT = 256

# What platform.machine() says, by the beginning of a target's arch.
MACHINES = {"x86-64": ("x86_64", "amd64"), "armv8": ("aarch64", "arm64")}


class CpuDriver:
    """Satisfies `lostwax.backends.runtime.driver.Driver`."""

    def __init__(self, target: Target, kernels: Path, compiled: dict[str, CompiledKernel]) -> None:
        here = platform.machine().lower()
        wanted = next((m for a, m in MACHINES.items() if target.arch.startswith(a)), ())
        if here not in wanted:
            raise DeviceUnavailable(
                f"target {target.name} needs {' or '.join(wanted)}, this machine is {here};"
                " compile for the target of this machine"
            )

    @property
    def device(self) -> torch.device:
        """The host."""
        return torch.device("cpu")

    def allocate(self, num_bytes: int) -> torch.Tensor:
        """A zeroed u8 [num_bytes] buffer, aligned to 256 bytes."""
        raw = torch.zeros(num_bytes + ALIGNMENT, dtype=torch.uint8)
        start = -raw.data_ptr() % ALIGNMENT
        return raw[start : start + num_bytes]

    def bind(self, launch: Launch, resolve: Resolve) -> Thunk:
        """The host call over resolved memory."""
        if not isinstance(launch, HostCall):
            raise ValueError(
                f"{launch.op}: the CPU has no compiled kernels; the artifact is for another target"
            )
        return bind_host_call(launch, resolve, BACKEND.kernels)

    def capture(self, launches: Sequence[Thunk]) -> Thunk:
        """The sequence itself: nothing is captured."""
        sequence = tuple(launches)

        def walk() -> None:
            for launch in sequence:
                launch()

        return walk

    def synchronize(self) -> None:
        """Nothing is asynchronous."""
