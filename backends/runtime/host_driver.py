"""The driver of targets that run torch on the host: tensors as memory, host calls walked."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

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
from lostwax.backends.runtime.host_memory import zeroed
from lostwax.backends.runtime.processor import processor
from lostwax.backends.runtime.torch_memory import TorchMemory
from lostwax.ir.contract.kernel import CompiledKernel
from lostwax.ir.contract.program import Launch
from lostwax.ir.contract.target import Target


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
    def memory(self) -> TorchMemory:
        """Tensors."""
        return TorchMemory(self)

    @property
    def device_name(self) -> str:
        """The processor's model."""
        return processor()

    @property
    def fingerprint(self) -> str:
        """The processor's model and torch's build."""
        return f"{self.device_name}, torch {torch.__version__}"

    def allocate(self, num_bytes: int) -> torch.Tensor:
        """A zeroed u8 [num_bytes] buffer, aligned to 256 bytes."""
        return torch.from_numpy(zeroed(num_bytes))

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

    def running(self) -> AbstractContextManager[object]:
        """torch's mode for what is never differentiated."""
        return torch.inference_mode()

    def mark(self) -> Mark:
        """Passed: a launch returns when it has run."""
        return Passed()

    def synchronize(self) -> None:
        """Nothing is asynchronous."""
