"""GPUs that torch reaches as `cuda` (CUDA and HIP builds): memory, launches, captured graphs.

Loading and launching binaries is the vendor library's, which a target gives. Imports no compiler.
Launches go to the calling thread's current torch stream.
"""

from __future__ import annotations

import ctypes
from typing import Any, Protocol

import torch

from lostwax.backends.runtime.artifact_reader import ArtifactError
from lostwax.backends.runtime.driver import ReadKernel, Resolve, Thunk
from lostwax.backends.runtime.host_call import bind_host_call
from lostwax.backends.runtime.kernel_parameters import PackedParameters, over_memory
from lostwax.backends.runtime.stream_device import StreamDevice
from lostwax.ir.contract.kernel import CompiledKernel
from lostwax.ir.contract.parameter import TensorMap
from lostwax.ir.contract.program import HostCall, KernelLaunch, Launch


class KernelLibrary(Protocol):
    """The vendor's driver library."""

    def load(self, binary: bytes, symbol: str) -> ctypes.c_void_p:
        """A kernel of a binary."""
        ...

    def pack(
        self, kernel: ctypes.c_void_p, launch: KernelLaunch, parameters: PackedParameters
    ) -> Any:  # each vendor's own structure, which only its `launch` reads
        """The launch with everything that the driver reads at the call."""
        ...

    def encode_tensor_map(
        self, tensor_map: TensorMap, address: int, extents: tuple[int, ...]
    ) -> bytes:
        """The map over memory at an address; raises the vendor's error where it has no such."""
        ...

    def launch(self, packed: Any, stream: int) -> None:
        """Launch on a stream."""
        ...


class GpuDriver(StreamDevice):
    """One GPU. Satisfies `runtime.driver.Driver` once a target's subclass opens the device."""

    def __init__(
        self,
        device: torch.device,
        library: KernelLibrary,
        packages: tuple[str, ...],
        kernels: ReadKernel,
        compiled: dict[str, CompiledKernel],
    ) -> None:
        super().__init__(device, torch.cuda, torch.cuda.CUDAGraph)
        self._library = library
        self._packages = packages
        self._kernels = kernels
        self._compiled = compiled
        self._loaded: dict[tuple[str, str], ctypes.c_void_p] = {}

    @property
    def fingerprint(self) -> str:
        """The GPU's name and what torch was built with."""
        build = torch.version.hip or torch.version.cuda
        return f"{self.device_name}, torch {torch.__version__}, {build}"

    def bind(self, launch: Launch, resolve: Resolve) -> Thunk:
        """The launch over resolved memory, with parameters packed and the binary loaded."""
        if isinstance(launch, HostCall):
            return bind_host_call(launch, resolve, self._packages)
        return self._bind_kernel(launch, resolve)

    def _bind_kernel(self, launch: KernelLaunch, resolve: Resolve) -> Thunk:
        kernel = self._kernel(launch.binary, launch.symbol)
        parameters, tensors = over_memory(launch.params, resolve, self._library.encode_tensor_map)
        packed = self._library.pack(kernel, launch, parameters)

        def run(keep: object = tensors) -> None:  # the packed addresses point into these tensors
            self._library.launch(packed, torch.cuda.current_stream().cuda_stream)

        return run

    def _kernel(self, binary: str, symbol: str) -> ctypes.c_void_p:
        found = self._loaded.get((binary, symbol))
        if found is None:
            if binary not in self._compiled:
                raise ArtifactError(
                    f"the artifact lists no kernel {binary!r}, which a program launches;"
                    " recompile it"
                )
            found = self._library.load(self._kernels(binary), symbol)
            self._loaded[binary, symbol] = found
        return found
