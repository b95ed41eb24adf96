"""Every call of the driver API works in a thread that has not used the device yet."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import local
from typing import Any

import pytest

from lostwax.backends.cuda.libcuda import CudaError, LibCuda
from lostwax.backends.runtime.kernel_parameters import PackedParameters
from lostwax.ir.contract.parameter import TensorMap
from lostwax.ir.contract.program import KernelLaunch, View

CONTEXT = 77
LAUNCH = KernelLaunch(
    binary="k.cubin", symbol="k", grid=(1, 1, 1), block=(1, 1, 1), params=(), shared_bytes=64
)
MAP = TensorMap(
    view=View(space="arena", name="x", dtype="bf16", shape=(64, 64), strides=(64, 1), offset=0),
    box=(64, 64),
)


class Library:
    """A driver whose calls want a context in their own thread, as CUDA's do (201 where none is)."""

    def __init__(self) -> None:
        self._current = local()

    def cuCtxSetCurrent(self, context: Any) -> int:
        self._current.context = context.value
        return 0

    def cuFuncGetParamInfo(self, *arguments: Any) -> int:
        return 1 if self._has_context() else 201

    def __getattr__(self, name: str) -> Callable[..., int]:
        if not name.startswith("cu"):
            raise AttributeError(name)
        return lambda *arguments: 0 if self._has_context() else 201

    def cuGetErrorName(self, *arguments: Any) -> int:
        return 0

    def _has_context(self) -> bool:
        return getattr(self._current, "context", None) == CONTEXT


@pytest.fixture
def cuda() -> LibCuda:
    made = LibCuda.__new__(LibCuda)  # without a device
    made._lib = Library()  # pyright: ignore[reportPrivateUsage,reportAttributeAccessIssue]
    made._permitted = {}  # pyright: ignore[reportPrivateUsage]
    made._context = ctypes.c_void_p(CONTEXT)  # pyright: ignore[reportPrivateUsage]
    return made


def _load(cuda: LibCuda) -> object:
    return cuda.load(b"", "k")


def _pack(cuda: LibCuda) -> object:
    return cuda.pack(ctypes.c_void_p(), LAUNCH, PackedParameters([]))


def _encode(cuda: LibCuda) -> object:
    return cuda.encode_tensor_map(MAP, 1 << 20, (64, 64))


@pytest.mark.parametrize("call", [_load, _pack, _encode])
def test_a_thread_of_its_own_gets_the_context(
    cuda: LibCuda, call: Callable[[LibCuda], object]
) -> None:
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(call, cuda).result() is not None


def test_a_launch_in_another_thread_has_the_context(cuda: LibCuda) -> None:
    packed = cuda.pack(ctypes.c_void_p(), LAUNCH, PackedParameters([]))
    with ThreadPoolExecutor(1) as pool:
        pool.submit(cuda.launch, packed, 0).result()


def test_a_context_that_is_gone_is_an_error(cuda: LibCuda) -> None:
    cuda._context = ctypes.c_void_p(CONTEXT + 1)  # pyright: ignore[reportPrivateUsage]
    with pytest.raises(CudaError, match="cuModuleLoadData"):
        _load(cuda)
