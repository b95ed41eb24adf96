"""Launches of `fp8_products.cu` on the CPU: the kernel's own source by fibers (cuda_twin/)."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import torch

import lostwax.backends.cuda.kernels
from lostwax.backends.runtime.driver import Resolve, Thunk
from lostwax.ir.contract.kernel import KernelSource
from lostwax.ir.contract.parameter import Pointer, Scalar, TensorMap
from lostwax.ir.contract.program import KernelLaunch

TWIN = Path(__file__).parents[1] / "cuda_twin"
KERNELS = Path(lostwax.backends.cuda.kernels.__file__).parent
_CLUSTERS = 2  # fewer than tiles, so that a cluster takes several


class Map(ctypes.Structure):
    """A tensor map as the twin has it."""

    _fields_ = [
        ("data", ctypes.c_void_p), ("stride", ctypes.c_longlong), ("rows", ctypes.c_int),
        ("columns", ctypes.c_int), ("box_rows", ctypes.c_int),
    ]  # fmt: skip


class Given(ctypes.Structure):
    """The kernel's parameters in order, then the clusters of the grid."""

    _fields_ = [
        *((name, ctypes.POINTER(Map)) for name in ("x", "weight", "up")),
        *((name, ctypes.c_void_p) for name in (
            "x_scale", "weight_scale", "up_scale", "out", "out_scale", "real_rows",
            "pair_of_slot", "expert_of_tile",
        )),
        ("out_stride", ctypes.c_longlong),
        *((name, ctypes.c_int) for name in (
            "scale_row", "scale_block", "rows", "columns", "blocks", "most_row_tiles", "turns",
        )),
        ("tickets", ctypes.c_void_p),
        ("clusters", ctypes.c_int),
    ]  # fmt: skip


class ProductsTwin:
    """Shared libraries of the kernel, each compiled once, from the sources in `kernels`."""

    def __init__(self, folder: Path, kernels: Path = KERNELS) -> None:
        self._folder, self._kernels = folder, kernels
        self._made: dict[str, ctypes.CDLL] = {}

    def bind(self, source: KernelSource, launch: KernelLaunch, resolve: Resolve) -> Thunk:
        """The launch over resolved memory."""
        library, kept = self._library(source), list[torch.Tensor]()
        values: list[object] = []
        for param in launch.params:
            match param:
                case TensorMap():
                    kept.append(tensor := resolve(param.view))
                    rows, columns = tensor.shape
                    assert tensor.element_size() == 1
                    assert param.box[1] == 128
                    assert param.swizzle == "128B"
                    found = Map(tensor.data_ptr(), tensor.stride(0), rows, columns, param.box[0])
                    values.append(ctypes.pointer(found))
                case Pointer():
                    kept.append(tensor := resolve(param.view))
                    values.append(tensor.data_ptr())
                case Scalar():
                    values.append(param.value)
                case _:
                    raise AssertionError(param)
        cluster = launch.cluster[0]
        assert cluster == source.constants["CLUSTER"]
        given = Given(*values, min(launch.grid[0] // cluster, _CLUSTERS))

        def run() -> None:
            library.multiply_rows(ctypes.byref(given))
            kept.clear()

        return run

    def _library(self, source: KernelSource) -> ctypes.CDLL:
        name = "-".join(map(str, source.constants.values()))
        if name not in self._made:
            library = self._folder / f"{name}.so"
            defines = [f"-D{n}={v}" for n, v in source.constants.items()]
            defines.append(f'-DPRODUCTS_SOURCE="{self._kernels / source.path}"')
            # g++ 12 ends with an internal error where it vectorises the sums of two parts
            flags = ["-std=c++20", "-O2", "-fno-tree-vectorize", "-w", "-shared", "-fPIC"]
            command = ["g++", *flags, f"-I{TWIN}", *defines, "-o", str(library)]
            subprocess.run([*command, str(TWIN / "fp8_products_twin.cpp")], check=True)
            self._made[name] = ctypes.CDLL(str(library))
        return self._made[name]
