"""A launch gives a kernel just the parameters that it takes: the driver reads no others."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest

from lostwax.backends.cuda.libcuda import CudaError, LibCuda
from lostwax.backends.runtime.kernel_parameters import PackedParameters
from lostwax.ir.contract.parameter import Null, Scalar
from lostwax.ir.contract.program import KernelLaunch

LAUNCH = KernelLaunch(binary="k.cubin", symbol="k", grid=(1, 1, 1), block=(1, 1, 1), params=())
SIZES = (8, 4, 8)
"""Of a kernel of one pointer, an i32 and Triton's scratch pointer."""


class Library:
    """The driver's answer, as an H200's gives it: 0 and the size, 1 beyond the last."""

    def cuFuncGetParamInfo(self, kernel: Any, index: Any, offset: Any, size: Any) -> int:
        if index.value >= len(SIZES):
            return 1
        ctypes.cast(size, ctypes.POINTER(ctypes.c_size_t))[0] = SIZES[index.value]
        return 0


@pytest.fixture
def cuda() -> LibCuda:
    made = LibCuda.__new__(LibCuda)  # without a device
    made._lib = Library()  # pyright: ignore[reportPrivateUsage,reportAttributeAccessIssue]
    made._permitted = {}  # pyright: ignore[reportPrivateUsage]
    return made


def test_the_right_parameters_are_packed(cuda: LibCuda) -> None:
    right = PackedParameters([1234, Scalar("i32", 7), Null()])
    assert right.sizes == SIZES
    cuda.pack(ctypes.c_void_p(), LAUNCH, right)


@pytest.mark.parametrize(
    "params",
    [
        [],
        [1234, Scalar("i32", 7)],
        [1234, Scalar("i64", 7), Null()],
        [1234, Scalar("i32", 7), Null(), Null()],
    ],
    ids=["none", "too few", "too wide", "too many"],
)
def test_other_parameters_are_refused(cuda: LibCuda, params: list[int | Scalar | Null]) -> None:
    with pytest.raises(CudaError, match=r"kernel k takes parameters of \[8.*recompile"):
        cuda.pack(ctypes.c_void_p(), LAUNCH, PackedParameters(params))
