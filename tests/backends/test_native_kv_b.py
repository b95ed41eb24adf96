"""Products of attention of few rows with an int8 kv_b: what they sum, and that a row's bits do not
depend on how many rows stand beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import ml_dtypes
import numpy as np
import pytest
from native_kernels import LEVELS, pool_of
from numpy.typing import NDArray

from lostwax.backends.cpu.contract.sizes import ROOM_BYTES, ROW_BLOCK
from lostwax.backends.cpu.pool import NativeLaunch, NativePool, StepList
from lostwax.backends.runtime.kernel_parameters import PackedParameters
from lostwax.ir.contract.parameter import Scalar

BF16, F32 = np.dtype(ml_dtypes.bfloat16), np.dtype(np.float32)
NAMES = {BF16: "bf16", F32: "f32"}
MANY = ROW_BLOCK + 9
SCALE = 0.3
Array = NDArray[np.generic]


class Shape(NamedTuple):
    """Of a kv_b [heads * (nope + value), latent], and a query's rope part."""

    heads: int
    nope: int
    value: int
    latent: int
    rope: int


SHAPES = [Shape(3, 128, 64, 96, 8), Shape(2, 37, 21, 43, 5)]
"""In whole tiles and vectors, and not."""


@pytest.fixture(params=LEVELS, ids=lambda suffix: suffix or "least")
def native(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> NativePool:
    """The library's kernels for one of the instruction sets that it was built for."""
    return pool_of(request.param, monkeypatch)


def _run(native: NativePool, symbol: str, *arguments: Array | int | float) -> None:
    packed = PackedParameters(
        [
            Scalar("i32", each)
            if isinstance(each, int)
            else Scalar("f32", each)
            if isinstance(each, float)
            else each.ctypes.data
            for each in arguments
        ]
    )
    StepList(native, (NativeLaunch(native.kernel(symbol), packed, ROOM_BYTES, arguments),))()


def _kv_b(shape: Shape) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    draw, rows = np.random.default_rng(1), shape.heads * (shape.nope + shape.value)
    codes = draw.integers(-127, 128, (rows, shape.latent)).astype(np.int8)
    return codes, draw.uniform(0.01, 2, rows).astype(F32)


def _heads(shape: Shape) -> NDArray[np.float64]:
    """What kv_b means, by head."""
    codes, scales = _kv_b(shape)
    return (codes * scales[:, None].astype(np.float64)).reshape(shape.heads, -1, shape.latent)


def _absorbed(native: NativePool, q_nope: Array, q_pe: Array, shape: Shape) -> NDArray[np.float32]:
    rows, (heads, nope, value, latent, rope) = len(q_nope), shape
    q, real = np.full((rows, heads, latent + rope), np.nan, F32), np.array([rows], np.int32)
    strides = (heads * nope, nope, heads * rope, rope)
    _run(
        native, f"absorb_{NAMES[q_nope.dtype]}_s8", q_nope, q_pe, *_kv_b(shape), q, real,
        rows, heads, nope, rope, value, latent, *strides, SCALE,
    )  # fmt: skip
    return q


def _written(
    native: NativePool, context: Array, shape: Shape, dtype: np.dtype[np.generic]
) -> Array:
    rows, (heads, nope, value, latent, _) = len(context), shape
    out, real = np.zeros((rows, heads * value), dtype), np.array([rows], np.int32)
    _run(
        native, f"write_heads_s8_{NAMES[dtype]}", context, *_kv_b(shape), out, real,
        rows, heads, nope, value, latent, heads * value,
    )  # fmt: skip
    return out


def _drawn(sizes: Sequence[int], dtype: np.dtype[np.generic]) -> Array:
    return np.random.default_rng(0).standard_normal((MANY, *sizes)).astype(dtype)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [F32, BF16], ids=str)
def test_absorbed_queries(native: NativePool, shape: Shape, dtype: np.dtype[np.generic]) -> None:
    q_nope, q_pe = (_drawn((shape.heads, n), dtype) for n in (shape.nope, shape.rope))
    together = _absorbed(native, q_nope, q_pe, shape)
    asked, keys = q_nope.astype(np.float64), _heads(shape)[:, : shape.nope]
    exact = SCALE * np.einsum("thd,hdc->thc", asked, keys)
    within = 1e-6 * np.einsum("thd,hdc->thc", np.abs(asked), np.abs(keys))
    assert (np.abs(together[..., : shape.latent] - exact) <= within).all()
    np.testing.assert_array_equal(
        together[..., shape.latent :], q_pe.astype(F32) * np.float32(SCALE)
    )
    for rows in (1, 2, 5, 6, 7, ROW_BLOCK):
        np.testing.assert_array_equal(
            _absorbed(native, q_nope[-rows:].copy(), q_pe[-rows:].copy(), shape), together[-rows:]
        )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [F32, BF16], ids=str)
def test_values_of_heads(native: NativePool, shape: Shape, dtype: np.dtype[np.generic]) -> None:
    context = _drawn((shape.heads, shape.latent), F32)
    together = _written(native, context, shape, dtype)
    values = _heads(shape)[:, shape.nope :]
    exact = np.einsum("thc,hvc->thv", context.astype(np.float64), values).reshape(MANY, -1)
    sizes = np.einsum("thc,hvc->thv", np.abs(context), np.abs(values)).reshape(MANY, -1)
    rounding = 2.0**-8 if dtype == BF16 else 0.0
    off = np.abs(together.astype(np.float64) - exact)
    assert (off <= 1e-6 * sizes + rounding * np.abs(exact)).all()
    for rows in (1, 2, 3, 4, ROW_BLOCK):
        np.testing.assert_array_equal(
            _written(native, context[-rows:].copy(), shape, dtype), together[-rows:]
        )
