"""Launches of one kernel keep what each of them is permitted. The driver library is a stand-in."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import pytest

from lostwax.backends.cuda import libcuda
from lostwax.backends.cuda.libcuda import LibCuda
from lostwax.backends.runtime.kernel_parameters import PackedParameters
from lostwax.ir.contract.program import KernelLaunch

_MAX_DYNAMIC_SHARED_BYTES = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES


class _Driver:
    """A driver that knows what a kernel's launches may have, and refuses what is beyond."""

    def __init__(self) -> None:
        self.permitted: dict[int, int] = {}

    def cuCtxGetCurrent(self, context: object) -> int:
        return 0

    def cuFuncSetAttribute(self, kernel: ctypes.c_void_p, attribute: int, value: int) -> int:
        assert attribute == _MAX_DYNAMIC_SHARED_BYTES
        assert kernel.value is not None
        self.permitted[kernel.value] = value
        return 0


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> _Driver:
    made = _Driver()
    load: Callable[[str], Any] = lambda name: made  # noqa: E731
    monkeypatch.setattr(libcuda.ctypes, "CDLL", load)
    return made


def _launch(shared_bytes: int) -> KernelLaunch:
    return KernelLaunch(
        binary="k.cubin", symbol="k", grid=(1, 1, 1), block=(32, 1, 1), params=(),
        shared_bytes=shared_bytes, op="op",
    )  # fmt: skip


@pytest.mark.parametrize("sizes", [(256, 1024, 512), (1024, 256), (65536, 100, 0)])
def test_a_smaller_launch_of_a_kernel_leaves_a_larger_one_its_shared_memory(
    driver: _Driver, sizes: tuple[int, ...]
) -> None:
    library, kernel = LibCuda(), ctypes.c_void_p(7)
    for size in sizes:
        library.pack(kernel, _launch(size), PackedParameters([]))
    assert driver.permitted == {7: max(sizes)}


def test_kernels_are_permitted_apart(driver: _Driver) -> None:
    library = LibCuda()
    library.pack(ctypes.c_void_p(7), _launch(2048), PackedParameters([]))
    library.pack(ctypes.c_void_p(9), _launch(1024), PackedParameters([]))
    assert driver.permitted == {7: 2048, 9: 1024}
