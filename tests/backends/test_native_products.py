"""Products of the native kernels on each instruction set that this processor has: a row's bits do
not depend on how many rows stand beside it, and the sums are right."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from native_kernels import LEVELS, pool_of
from numpy.typing import NDArray

from lostwax.backends.cpu.contract.sizes import ROOM_BYTES, ROW_BLOCK
from lostwax.backends.cpu.pool import NativeLaunch, NativePool, StepList
from lostwax.backends.runtime.kernel_parameters import PackedParameters
from lostwax.ir.contract.parameter import Null, Scalar

BF16, E4M3 = np.dtype(ml_dtypes.bfloat16), np.dtype(ml_dtypes.float8_e4m3fn)
F32 = np.dtype(np.float32)
TILE, BLOCK = 16, 128
MANY = ROW_BLOCK + 9
Array = NDArray[np.generic]
Dtype = np.dtype[np.generic]


@pytest.fixture(params=LEVELS, ids=lambda suffix: suffix or "least")
def native(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> NativePool:
    """The library's kernels for one of the instruction sets that it was built for."""
    return pool_of(request.param, monkeypatch)


def _packed(weight: Array) -> Array:
    """[N, K] -> [N / 16, K, 16], filled up with zeros."""
    columns, count = weight.shape
    tiles = -(-columns // TILE)
    whole = np.zeros((tiles * TILE, count), weight.dtype)
    whole[:columns] = weight
    return np.ascontiguousarray(whole.reshape(tiles, TILE, count).transpose(0, 2, 1))


def _linear(
    native: NativePool, x: Array, weight: Array, scales: Array | None
) -> NDArray[np.float32]:
    """x [T, K] . weight [N, K] in f32, by the kernel for these types."""
    (rows, count), columns = x.shape, len(weight)
    types = {F32: "f32", BF16: "bf16", E4M3: "f8"}
    names = [types[x.dtype], types[weight.dtype], "f32"]
    symbol = "linear_" + ("f32" if x.dtype == F32 else "_".join(names))
    out, real = np.full((rows, columns), np.nan, F32), np.array([rows], np.int32)
    packed = _packed(weight)
    places = [x, packed, scales, out, real]
    numbers = (rows, count, columns, count, columns)
    arguments = [Null() if each is None else each.ctypes.data for each in places]
    parameters = PackedParameters([*arguments, *(Scalar("i32", n) for n in numbers)])
    launch = NativeLaunch(native.kernel(symbol), parameters, ROOM_BYTES, (places,))
    StepList(native, (launch,))()
    return out


def _operands(
    x_type: Dtype, w_type: Dtype, count: int, columns: int
) -> tuple[Array, Array, NDArray[np.float32] | None]:
    rng = np.random.default_rng(count)
    x = rng.standard_normal((MANY, count)).astype(x_type)
    weight = rng.standard_normal((columns, count)).astype(w_type)
    if w_type != E4M3:
        return x, weight, None
    blocks = (-(-columns // BLOCK), -(-count // BLOCK))
    return x, weight, (0.5 + rng.random(blocks)).astype(F32)


@pytest.mark.parametrize(("count", "columns"), [(1, 16), (31, 80), (300, 40), (1100, 130)])
@pytest.mark.parametrize(
    "types", [(F32, F32), (BF16, BF16), (BF16, E4M3)], ids=["f32", "bf16", "f8"]
)
def test_a_row_has_one_sum_whatever_stands_beside_it(
    native: NativePool, types: tuple[Dtype, Dtype], count: int, columns: int
) -> None:
    x, weight, scales = _operands(*types, count, columns)
    together = _linear(native, x, weight, scales)
    wide = weight.astype(np.float64)
    if scales is not None:
        wide = wide * np.repeat(np.repeat(scales, BLOCK, 0), BLOCK, 1)[:columns, :count]
    exact = x.astype(np.float64) @ wide.T
    within = 1e-6 * (np.abs(x.astype(np.float64)) @ np.abs(wide).T)
    assert (np.abs(together - exact) <= within).all()
    for rows in (1, 2, 3, 4, 5, 6, 7, 16, 17, 33, ROW_BLOCK):
        alone = _linear(native, x[-rows:].copy(), weight, scales)
        np.testing.assert_array_equal(alone.view(np.uint32), together[-rows:].view(np.uint32))
