"""One Ascend NPU, with CANN's operators called through torch_npu.

**Never run**: written after torch_npu's documentation, without a device. Operators are called one
by one in the order of the program; only a target that says so has its decode steps captured.
"""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import Any

import torch
import torch.distributed as dist

from lostwax.backends.ascend import BACKEND
from lostwax.backends.ascend.contract.snapshot import read_snapshot
from lostwax.backends.ascend.installed import in_words
from lostwax.backends.ascend.kernels.operators import unfit
from lostwax.backends.ascend.presence import no_device
from lostwax.backends.runtime.driver import DeviceUnavailable, ReadKernel, Resolve, Thunk
from lostwax.backends.runtime.host_call import bind_only_host_calls
from lostwax.backends.runtime.library_loading import loading
from lostwax.backends.runtime.open_device import opening
from lostwax.backends.runtime.stream_device import StreamDevice
from lostwax.ir.contract.kernel import CompiledKernel
from lostwax.ir.contract.program import Launch
from lostwax.ir.contract.target import Target


class AscendDriver(StreamDevice):
    """Satisfies `runtime.driver.Driver`. Of several ranks each has the device of its number."""

    def __init__(
        self, target: Target, kernels: ReadKernel, compiled: dict[str, CompiledKernel]
    ) -> None:
        with opening(partial(no_device, target, torch.__version__)):
            npu = _open_device(target)
            if dist.is_initialized():
                npu.set_device(dist.get_rank())
            device = torch.device("npu", npu.current_device())
        super().__init__(device, npu, npu.NPUGraph)

    @property
    def fingerprint(self) -> str:
        """The NPU's name, the versions of torch, torch_npu, CANN and the NPU's driver, and what
        torch stands in for.

        Of every operator that lostwax calls: what an artifact leaves out proves nothing either way.
        """
        instead = [name for name in read_snapshot().schemas if unfit(name)]
        without = f", without {', '.join(instead)}" if instead else ""
        return f"{self.device_name}, torch {torch.__version__}, {in_words()}{without}"

    def bind(self, launch: Launch, resolve: Resolve) -> Thunk:
        """The host call over resolved memory."""
        return bind_only_host_calls(launch, resolve, BACKEND.kernels)


def _open_device(target: Target) -> Any:  # torch.npu, which torch_npu adds and has no stubs
    """The current NPU; DeviceUnavailable if there is none, or one of another kind."""
    with loading("torch_npu"):
        import_module("torch_npu")
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
