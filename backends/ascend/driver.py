"""One Ascend NPU: the device that is current, with CANN's operators called through torch_npu.

**Never run**: written after torch_npu's documentation, without a device. Operators are called one
by one in the order of the program; nothing is captured as a graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import torch

from lostwax.backends.ascend import BACKEND
from lostwax.backends.ascend.kernels.installed import require_library
from lostwax.backends.ascend.presence import no_device
from lostwax.backends.runtime.artifact_reader import ArtifactError
from lostwax.backends.runtime.driver import DeviceUnavailable, Mark, ReadKernel, Resolve, Thunk
from lostwax.backends.runtime.host_call import bind_host_call
from lostwax.ir.contract.kernel import CompiledKernel
from lostwax.ir.contract.program import HostCall, Launch
from lostwax.ir.contract.target import Target


class _EventMark:
    """An event of the current stream, recorded now."""

    def __init__(self, npu: Any) -> None:  # torch_npu has no stubs
        self._event = npu.Event()
        self._event.record()

    @property
    def passed(self) -> bool:
        """Asks the event."""
        return bool(self._event.query())

    def wait(self) -> None:
        """Waits for the event, not for what was launched behind it."""
        self._event.synchronize()


class AscendDriver:
    """Satisfies `runtime.driver.Driver`."""

    def __init__(
        self, target: Target, kernels: ReadKernel, compiled: dict[str, CompiledKernel]
    ) -> None:
        self._npu = _open_device(target)
        require_library()

    @property
    def device(self) -> torch.device:
        """Where buffers lie."""
        return torch.device("npu", self._npu.current_device())

    @property
    def device_name(self) -> str:
        """The NPU's name, such as Ascend910B3."""
        return str(self._npu.get_device_name())

    @property
    def fingerprint(self) -> str:
        """The NPU's name, and the versions of torch, torch_npu and CANN."""
        package = import_module("torch_npu")
        cann = getattr(getattr(package, "version", None), "cann", "unknown")
        return (
            f"{self.device_name}, torch {torch.__version__}, torch_npu {package.__version__},"
            f" CANN {cann}"
        )

    def allocate(self, num_bytes: int) -> torch.Tensor:
        """A zeroed u8 [num_bytes] buffer; torch_npu's allocator aligns to 512 bytes."""
        return torch.zeros(num_bytes, dtype=torch.uint8, device=self.device)

    def staging(self, num_bytes: int) -> torch.Tensor:
        """A u8 [num_bytes] buffer of pinned host memory."""
        return torch.empty(num_bytes, dtype=torch.uint8, pin_memory=True)

    def bind(self, launch: Launch, resolve: Resolve) -> Thunk:
        """The host call over resolved memory."""
        if not isinstance(launch, HostCall):
            raise ArtifactError(
                f"{launch.op}: this target launches no kernels of its own; the artifact is for"
                " another target: recompile it"
            )
        return bind_host_call(launch, resolve, BACKEND.kernels)

    def capture(self, launches: Sequence[Thunk]) -> Thunk:
        """The sequence itself: nothing is captured."""
        sequence = tuple(launches)

        def walk() -> None:
            for launch in sequence:
                launch()

        return walk

    def mark(self) -> Mark:
        """An event behind what the current stream was given."""
        return _EventMark(self._npu)

    def synchronize(self) -> None:
        """Wait until everything launched has finished."""
        self._npu.synchronize()


def _open_device(target: Target) -> Any:  # torch.npu, which torch_npu adds and has no stubs
    """The current NPU; DeviceUnavailable if there is none, or one of another kind."""
    try:
        import_module("torch_npu")
    except (ImportError, RuntimeError) as error:  # RuntimeError: CANN's libraries are missing
        raise no_device(target, torch.__version__) from error
    npu: Any = getattr(torch, "npu")  # noqa: B009  torch_npu adds it
    if not npu.is_available():
        raise no_device(target, torch.__version__)
    name = str(npu.get_device_name())
    if _family(name) != _family(target.arch):
        raise DeviceUnavailable(
            f"target {target.name} is compiled for {target.arch}, this device is {name}: compile"
            " for a target of that family"
        )
    return npu


def _family(name: str) -> str:
    """What devices share their operators with: Ascend910B or Ascend910_93."""
    known = ("Ascend910_93", "Ascend910B")
    return next((family for family in known if name.startswith(family)), name)
