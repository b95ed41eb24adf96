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
F32, INT8 = np.dtype(np.float32), np.dtype(np.int8)
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
    types = {F32: "f32", BF16: "bf16", E4M3: "f8", INT8: "s8"}
    names = [types[x.dtype], types[weight.dtype], "f32"]
    symbol = "linear_" + ("f32" if x.dtype == weight.dtype == F32 else "_".join(names))
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
    if w_type == INT8:
        whole = rng.integers(-127, 128, (columns, count), INT8)
        return x, whole, (0.5 + rng.random(-(-columns // TILE) * TILE)).astype(F32)
    weight = rng.standard_normal((columns, count)).astype(w_type)
    if w_type != E4M3:
        return x, weight, None
    blocks = (-(-columns // BLOCK), -(-count // BLOCK))
    return x, weight, (0.5 + rng.random(blocks)).astype(F32)


def _of_whole_numbers(x: NDArray[np.float64], wide: NDArray[np.float64]) -> NDArray[np.float64]:
    """What the rounding of 128 places of x to 16 bits may change: half a step of the largest."""
    most = np.zeros((len(x), len(wide)))
    for first in range(0, x.shape[1], BLOCK):
        places = slice(first, first + BLOCK)
        step = np.abs(x[:, places]).max(1) / 32767
        most += 0.5001 * step[:, None] * wide[:, places].sum(1)
    return most


@pytest.mark.parametrize(("count", "columns"), [(1, 16), (31, 80), (300, 40), (1100, 130)])
@pytest.mark.parametrize(
    "types",
    [(F32, F32), (BF16, BF16), (BF16, E4M3), (F32, INT8), (BF16, INT8)],
    ids=["f32", "bf16", "f8", "f32-int8", "int8"],
)
def test_a_row_has_one_sum_whatever_stands_beside_it(
    native: NativePool, types: tuple[Dtype, Dtype], count: int, columns: int
) -> None:
    x, weight, scales = _operands(*types, count, columns)
    together = _linear(native, x, weight, scales)
    wide = weight.astype(np.float64)
    if weight.dtype == INT8:
        assert scales is not None
        wide = wide * scales[:columns, None]
    elif scales is not None:
        wide = wide * np.repeat(np.repeat(scales, BLOCK, 0), BLOCK, 1)[:columns, :count]
    exact = x.astype(np.float64) @ wide.T
    within = 1e-6 * (np.abs(x.astype(np.float64)) @ np.abs(wide).T)
    if types == (BF16, INT8):
        within += _of_whole_numbers(x.astype(np.float64), np.abs(wide))
    assert (np.abs(together - exact) <= within).all()
    for rows in (1, 2, 3, 4, 5, 6, 7, 16, 17, 33, ROW_BLOCK):
        alone = _linear(native, x[-rows:].copy(), weight, scales)
        np.testing.assert_array_equal(alone.view(np.uint32), together[-rows:].view(np.uint32))


def test_whole_numbers_neither_overflow_nor_spread_what_is_not_finite(native: NativePool) -> None:
    """All of the largest, as 128 products of 16 and 8 bits must fit; blocks of zeros, and of what
    is too small to count; one row with a NaN, one with an infinity, one too large to sum."""
    count, columns = 3 * BLOCK, 32
    weight = np.full((columns, count), -127, INT8)
    weight[1::2] = 127
    scales = np.full(columns, 0.5, F32)
    x = np.full((9, count), 3.0e38, F32)
    x[1], x[2], x[3] = -1.0, 0.0, 1e-38
    x[4], x[5], x[6] = 1.0, 1.0, 1.0
    x[4, :BLOCK], x[5, BLOCK + 5], x[6, -1] = 0.0, np.nan, np.inf
    x[7], x[8] = 2.0**-20, 1.0
    out = _linear(native, x.astype(BF16), weight, scales)
    sign = np.where(np.arange(columns) % 2, 63.5, -63.5)
    assert np.isnan(out[5]).all()
    for row in (0, 6):
        np.testing.assert_array_equal(out[row], np.sign(sign) * np.inf)
    for row, total in {1: -count, 2: 0, 3: 0, 4: 2 * BLOCK, 7: count * 2.0**-20, 8: count}.items():
        np.testing.assert_allclose(out[row], sign * total, rtol=1e-6, atol=1e-30)


@pytest.mark.parametrize("peak", [1.0, 30.0, 300.0, 3e3, 1e5, 1e30])
def test_a_place_that_stands_out_costs_the_others_no_more_than_bf16_did(
    native: NativePool, peak: float
) -> None:
    """Though it meets weights of 0, so that nothing of it is in the sum; beside other rows and
    alone."""
    rng = np.random.default_rng(3)
    count, columns = 2 * BLOCK, 64
    x = rng.standard_normal((MANY, count)).astype(F32)
    x[:, 7] = peak
    weight = rng.integers(-127, 128, (columns, count), INT8)
    weight[:, 7] = 0
    scales = np.ones(columns, F32)
    rounded = x.astype(BF16)
    out = _linear(native, rounded, weight, scales)
    exact = rounded.astype(np.float64) @ weight.T.astype(np.float64)
    off = np.sqrt(((out - exact) ** 2).mean() / (exact**2).mean())
    assert off < 3e-4
    alone = _linear(native, rounded[-1:].copy(), weight, scales)
    np.testing.assert_array_equal(alone.view(np.uint32), out[-1:].view(np.uint32))
