"""Runs launches of CUDA C++ kernels on the CPU: their own sources over fibers (cuda_twin/).

Buffers are guarded bytes (`guarded_buffers.py`) by the names of views. What is proven is which
numbers meet and who waits for whom, not races; what runs so is never called executed.
"""

from __future__ import annotations

import ctypes
import struct
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from guarded_buffers import Bytes, require_guards

import lostwax.backends.cuda.kernels
from lostwax.backends.gpu_kernels.cuda_files import cuda_files
from lostwax.ir.contract.dtypes import DTYPE_BYTES
from lostwax.ir.contract.kernel import CompiledKernel, KernelSource
from lostwax.ir.contract.parameter import (
    ADDRESS_BYTES,
    Null,
    Parameter,
    Pointer,
    Scalar,
    TensorMap,
)
from lostwax.ir.contract.program import KernelLaunch, View

TWIN = Path(__file__).parent / "backends" / "cuda_twin"
KERNELS = Path(lostwax.backends.cuda.kernels.__file__).parent

_CTAS = 4  # at a time
_SCALARS = {"i32": "<i", "i64": "<q", "f32": "<f"}


class Map(ctypes.Structure):
    """A tensor map as cuda_twin/hopper.h reads it; axes in the driver's order."""

    _fields_ = (
        ("base", ctypes.c_void_p),
        ("extents", ctypes.c_int * 3),
        ("box", ctypes.c_int * 3),
        ("strides", ctypes.c_longlong * 2),
        ("unused", ctypes.c_longlong * 2),
    )


class Rows(ctypes.Structure):
    """A tensor map of rows as cuda_twin/tiles.h reads it; the stride counts bytes."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("stride", ctypes.c_longlong),
        ("rows", ctypes.c_int),
        ("columns", ctypes.c_int),
        ("box_rows", ctypes.c_int),
        ("element_bytes", ctypes.c_int),
    )


def twin_function(library: Path, name: str) -> Callable[..., None]:
    """A library's function over fibers; AssertionError where threads waited in vain, or a kernel
    did what its device would not (`fail` in cuda_twin/fibers.h)."""
    function = getattr(ctypes.CDLL(str(library)), name)
    function.restype = ctypes.c_char_p

    def run(*given: Any) -> None:
        why: bytes | None = function(*given)
        assert why is None, why.decode()

    return run


class Twins:
    """A kernel compiler whose binaries are shared libraries, each made once."""

    def __init__(self, folder: Path, kernels: Path = KERNELS) -> None:
        self._folder, self._kernels = folder, kernels
        self._launches: dict[str, Callable[..., None]] = {}

    def compile(self, source: KernelSource, folder: Path) -> CompiledKernel:
        """The twin of one kernel and its constants."""
        name = source.digest()
        if name not in self._launches:
            library = self._folder / f"{name}.so"
            files = cuda_files(self._kernels, source.path)
            is_hopper = any(file.startswith("hopper/") for file in files)
            twin = "hopper.h" if is_hopper else "fibers.h"
            if "hopper/tiles.h" in files:
                twin = "tiles.h"
            defines = {n: str(v) for n, v in source.constants.items()}
            defines |= {
                "KERNEL_SOURCE": f'"{self._kernels / source.path}"',
                "KERNEL": source.symbol,
                "TWIN": f'"{twin}"',
            }
            macros = [f"-D{n}={v}" for n, v in defines.items()]
            flags = [
                "-std=c++20",
                "-O2",
                "-w",
                "-Wno-psabi",
                "-shared",
                "-fPIC",
                f"-I{TWIN}",
                f"-I{self._kernels}",
            ]
            command = ["g++", *flags, *macros, "-o", str(library), str(TWIN / "launch_twin.cpp")]
            subprocess.run(command, check=True)
            self._launches[name] = twin_function(library, "launch")
        return CompiledKernel(
            binary=name,
            symbol=source.symbol,
            digest=name,
            num_warps=source.num_warps,
            shared_bytes=0,
            registers=0,
        )

    def toolchain(self) -> dict[str, str]:
        """Nothing that an artifact would name."""
        return {}

    def run(self, launch: KernelLaunch, buffers: dict[str, Bytes]) -> None:
        """One launch over the buffers, a few CTAs at a time; none may wait for another.

        AssertionError where it writes beside a buffer, or `twin_function` says why it ended.
        """
        held = [ctypes.create_string_buffer(_held(each, buffers)) for each in launch.params]
        addresses = (ctypes.c_void_p * len(held))(*map(ctypes.addressof, held))
        grid, threads = launch.grid[0], launch.block[0]
        for first in range(0, grid, _CTAS):
            ctas = min(_CTAS, grid - first)
            self._launches[launch.binary](addresses, grid, first, ctas, threads)
        require_guards(buffers)


def address(view: View, buffers: dict[str, Bytes]) -> int:
    """Of the view's first element; AssertionError where the view leaves its buffer."""
    buffer = buffers[view.name]
    last = sum((n - 1) * s for n, s in zip(view.shape, view.strides, strict=True))
    assert view.offset + (last + 1) * DTYPE_BYTES[view.dtype] <= buffer.size, view
    return buffer.ctypes.data + view.offset


def _held(parameter: Parameter, buffers: dict[str, Bytes]) -> bytes:
    """A parameter as it lies in the kernel's parameters."""
    match parameter:
        case Pointer():
            return struct.pack("<Q", address(parameter.view, buffers))
        case Scalar():
            return struct.pack(_SCALARS[parameter.kind], parameter.value)
        case Null():
            return bytes(ADDRESS_BYTES)
        case TensorMap():
            return bytes(_map(parameter, buffers))
        case _:
            raise NotImplementedError(f"no twin takes {parameter}")


def _map(parameter: TensorMap, buffers: dict[str, Bytes]) -> Map | Rows:
    view, each = parameter.view, DTYPE_BYTES[parameter.view.dtype]
    if len(view.shape) == 3 and parameter.box[0] == 1:
        pages, rows, columns = view.shape
        assert parameter.box == (1, rows, min(columns, 128 // each)), "all rows of a page"
        assert (view.strides[1], parameter.swizzle) == (columns, "128B")
        stride = view.strides[0] * each
        return Rows(address(view, buffers), stride, pages, columns, rows, each)
    if len(view.shape) == 2:
        assert (parameter.box[1] * each, parameter.swizzle) == (128, "128B")
        stride = view.strides[0] * each
        return Rows(address(view, buffers), stride, *view.shape, parameter.box[0], each)
    assert (view.dtype, parameter.swizzle, parameter.fill) == ("bf16", "128B", "zero")
    given = Map(base=address(view, buffers))
    given.extents[:] = _reversed(view.shape)
    given.box[:] = _reversed(parameter.box)
    given.strides[:] = [2 * stride for stride in _reversed(view.strides)[1:]]
    return given


def _reversed(axes: Iterable[int]) -> list[int]:
    return list(axes)[::-1]
