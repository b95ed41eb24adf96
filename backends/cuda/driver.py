"""One NVIDIA GPU: torch tensors as memory, cubins launched by the driver API, torch's graphs.

Imports no Triton and no compiler. Launches go to the calling thread's current torch stream.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path

import torch

from lostwax.backends.cuda import BACKEND
from lostwax.backends.cuda.libcuda import LibCuda, PackedLaunch
from lostwax.backends.runtime.driver import DeviceUnavailable, Resolve, Thunk
from lostwax.backends.runtime.host_call import bind_host_call
from lostwax.ir.contract.kernel import CompiledKernel
from lostwax.ir.contract.program import HostCall, KernelLaunch, Launch, Null, Pointer, Scalar
from lostwax.ir.contract.target import Target

_WARM_UPS = 2  # the first call creates library handles, which capture forbids; the second is clean


class CudaDriver:
    """The device that is current when the driver is made. Satisfies `runtime.driver.Driver`."""

    def __init__(self, target: Target, kernels: Path, compiled: dict[str, CompiledKernel]) -> None:
        self._device = _open_device(target)
        self._kernels = kernels
        self._compiled = compiled
        self._cuda = LibCuda()
        self._functions: dict[str, ctypes.c_void_p] = {}
        self._stream = torch.cuda.Stream(self._device)
        self._pool = torch.cuda.graph_pool_handle()
        self._first_graph: torch.cuda.CUDAGraph | None = None

    @property
    def device(self) -> torch.device:
        """Where buffers lie."""
        return self._device

    def allocate(self, num_bytes: int) -> torch.Tensor:
        """A zeroed u8 [num_bytes] buffer; torch's allocator aligns to 512 bytes."""
        return torch.zeros(num_bytes, dtype=torch.uint8, device=self._device)

    def bind(self, launch: Launch, resolve: Resolve) -> Thunk:
        """The launch over resolved memory, with parameters packed and the cubin loaded."""
        if isinstance(launch, HostCall):
            return bind_host_call(launch, resolve, BACKEND.kernels)
        return self._bind_kernel(launch, resolve)

    def _bind_kernel(self, launch: KernelLaunch, resolve: Resolve) -> Thunk:
        tensors: list[torch.Tensor] = []
        params: list[int | Scalar | Null] = []
        for param in launch.params:
            if isinstance(param, Pointer):
                tensors.append(resolve(param.view))
                params.append(tensors[-1].data_ptr())
            else:
                params.append(param)
        function = self._function(launch.binary, launch.symbol)
        x, y, z = launch.cluster
        self._cuda.allow(function, launch.shared_bytes, x * y * z)
        packed = PackedLaunch(
            function, launch.grid, launch.block, launch.cluster, launch.shared_bytes, params
        )

        def run(keep: object = tensors) -> None:  # the packed addresses point into these tensors
            self._cuda.launch(packed, torch.cuda.current_stream().cuda_stream)

        return run

    def _function(self, binary: str, symbol: str) -> ctypes.c_void_p:
        found = self._functions.get(binary)
        if found is None:
            if binary not in self._compiled:
                raise ValueError(
                    f"the artifact lists no kernel {binary!r}, which a program launches;"
                    " recompile it"
                )
            module = self._cuda.load((self._kernels / binary).read_bytes())
            found = self._functions[binary] = self._cuda.function(module, symbol)
        return found

    def capture(self, launches: Sequence[Thunk]) -> Thunk:
        """Warm up, then record the launches as one device graph."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            for _ in range(_WARM_UPS):
                for launch in launches:
                    launch()
        self._stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        # One pool for all graphs: they never run at once and nothing in it outlives a replay.
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
            for launch in launches:
                launch()
        # torch refuses a pool whose last graph has died: the first one keeps it usable.
        self._first_graph = self._first_graph or graph
        return graph.replay

    def synchronize(self) -> None:
        """Wait until everything launched has finished."""
        torch.cuda.synchronize(self._device)


def _open_device(target: Target) -> torch.device:
    """The current CUDA device with its context made; DeviceUnavailable if it does not fit."""
    if not torch.cuda.is_available():
        raise DeviceUnavailable(
            f"target {target.name} needs an NVIDIA GPU with its driver and a CUDA build of torch;"
            f" torch {torch.__version__} sees none here: compile for --target cpu, or install both"
        )
    device = torch.device("cuda", torch.cuda.current_device())
    major, minor = torch.cuda.get_device_capability(device)
    arch = f"sm_{major}{minor}"
    if target.arch.rstrip("af") != arch:
        raise DeviceUnavailable(
            f"target {target.name} is compiled for {target.arch}, this"
            f" {torch.cuda.get_device_name(device)} is {arch}: compile for a target of that arch"
        )
    torch.zeros(1, device=device)  # creates the primary context and makes it current
    return device
