"""Launches of `fp8_products.cu` and `fp8_queries.cu` on the CPU: the kernels' own sources by fibers
(cuda_twin/), a cluster at a time.
"""

from __future__ import annotations

import ctypes
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import torch
from twin_launches import Rows, twin_function

import lostwax.backends.cuda.kernels
from lostwax.backends.runtime.driver import Resolve, Thunk
from lostwax.backends.runtime.torch_memory import as_tensor
from lostwax.ir.contract.kernel import KernelSource
from lostwax.ir.contract.parameter import Parameter, Pointer, Scalar, TensorMap
from lostwax.ir.contract.program import KernelLaunch

TWIN = Path(__file__).parents[1] / "cuda_twin"
KERNELS = Path(lostwax.backends.cuda.kernels.__file__).parent
_CLUSTERS = 2  # fewer than tiles, so that a cluster takes several
_SCALARS = {"i32": "<i", "i64": "<q", "f32": "<f"}


class ProductsTwin:
    """Shared libraries of the kernels, each compiled once, from the sources in `kernels`."""

    def __init__(self, folder: Path, kernels: Path = KERNELS) -> None:
        self._folder, self._kernels = folder, kernels
        self._made: dict[str, Callable[..., None]] = {}

    def bind(self, source: KernelSource, launch: KernelLaunch, resolve: Resolve) -> Thunk:
        """The launch over resolved memory."""
        launched, kept = self._launched(source), list[torch.Tensor]()
        held = [ctypes.create_string_buffer(_held(param, resolve, kept)) for param in launch.params]
        cluster = launch.cluster[0]
        assert cluster == source.constants["CLUSTER"]
        grid = min(launch.grid[0], cluster * _CLUSTERS)

        def run() -> None:
            addresses = (ctypes.c_void_p * len(held))(*map(ctypes.addressof, held))
            for first in range(0, grid, cluster):
                launched(addresses, grid, first, cluster, launch.block[0])
            kept.clear()

        return run

    def _launched(self, source: KernelSource) -> Callable[..., None]:
        name = "-".join((source.symbol, *map(str, source.constants.values())))
        if name not in self._made:
            library = self._folder / f"{name}.so"
            defines = {n: str(v) for n, v in source.constants.items()}
            defines |= {"KERNEL_SOURCE": f'"{self._kernels / source.path}"', "TWIN": '"tiles.h"'}
            defines |= {"KERNEL": source.symbol, "MEETING": "THREADS"}
            # g++ 12 ends with an internal error where it vectorises the sums of two parts
            flags = ["-std=c++20", "-O2", "-fno-tree-vectorize", "-w", "-shared", "-fPIC"]
            macros = [f"-D{n}={v}" for n, v in defines.items()]
            command = ["g++", *flags, f"-I{TWIN}", *macros, "-o", str(library)]
            subprocess.run([*command, str(TWIN / "launch_twin.cpp")], check=True)
            self._made[name] = twin_function(library, "launch")
        return self._made[name]


def _held(param: Parameter, resolve: Resolve, kept: list[torch.Tensor]) -> bytes:
    """A parameter as it lies in the kernel's parameters; tensors are kept alive."""
    match param:
        case TensorMap():
            kept.append(tensor := as_tensor(resolve(param.view)))
            rows, columns = tensor.shape
            assert (tensor.element_size(), param.box[1], param.swizzle) == (1, 128, "128B")
            return bytes(Rows(tensor.data_ptr(), tensor.stride(0), rows, columns, param.box[0], 1))
        case Pointer():
            kept.append(tensor := as_tensor(resolve(param.view)))
            return struct.pack("<Q", tensor.data_ptr())
        case Scalar():
            return struct.pack(_SCALARS[param.kind], param.value)
        case _:
            raise AssertionError(param)
