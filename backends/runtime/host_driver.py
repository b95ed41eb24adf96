"""The driver of targets that compute on the host: torch tensors as memory, host calls walked."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from lostwax.backends.runtime.driver import (
    Mark,
    Passed,
    ReadKernel,
    Resolve,
    Thunk,
    one_by_one,
    walked,
)
from lostwax.backends.runtime.host_call import bind_only_host_calls
from lostwax.ir.contract.kernel import CompiledKernel
from lostwax.ir.contract.program import Launch
from lostwax.ir.contract.target import Target

ALIGNMENT = 256


class HostDriver:
    """Satisfies `lostwax.backends.runtime.driver.Driver`; a target adds its kernels' packages."""

    packages: tuple[str, ...] = ()
    """Packages that host calls may name: the backend's `kernels`."""

    def __init__(
        self, target: Target, kernels: ReadKernel, compiled: dict[str, CompiledKernel]
    ) -> None:
        pass

    @property
    def device(self) -> torch.device:
        """The host."""
        return torch.device("cpu")

    @property
    def device_name(self) -> str:
        """The processor's model."""
        return _processor()

    @property
    def fingerprint(self) -> str:
        """The processor's model and torch's build."""
        return f"{self.device_name}, torch {torch.__version__}"

    def allocate(self, num_bytes: int) -> torch.Tensor:
        """A zeroed u8 [num_bytes] buffer, aligned to 256 bytes."""
        # numpy takes pages that the system zeroes at first touch; torch would write all of a cache.
        raw = torch.from_numpy(np.zeros(num_bytes + ALIGNMENT, np.uint8))
        start = -raw.data_ptr() % ALIGNMENT
        return raw[start : start + num_bytes]

    def staging(self, num_bytes: int) -> torch.Tensor:
        """Any buffer: host memory is the driver's own."""
        return self.allocate(num_bytes)

    def bind(self, launch: Launch, resolve: Resolve) -> Thunk:
        """The host call over resolved memory."""
        return bind_only_host_calls(launch, resolve, self.packages)

    def capture(self, launches: Sequence[Thunk]) -> Thunk:
        """The sequence itself: nothing is captured."""
        return walked(launches)

    def joined(self, launches: Sequence[Thunk]) -> Sequence[tuple[int, Thunk]]:
        """One call each."""
        return one_by_one(launches)

    def use_threads(self, count: int) -> None:
        """Torch's operators on so many threads."""
        torch.set_num_threads(count)

    def mark(self) -> Mark:
        """Passed: a launch returns when it has run."""
        return Passed()

    def synchronize(self) -> None:
        """Nothing is asynchronous."""


def _processor() -> str:
    """The model's name as Linux has it, else the architecture alone."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{platform.machine()} {names[0] if names else ''}".strip()
