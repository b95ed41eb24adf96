"""Numbers as the native kernels read and write them: every bf16, every e4m3, on each instruction
set of the library that this processor has."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from native_kernels import build_native, native_driver
from numpy.typing import NDArray
from tiny import PLAIN

from lostwax.backends.cpu import pool
from lostwax.backends.cpu.library import libraries, library_bytes
from lostwax.backends.cpu.lowerings import lowerings
from lostwax.backends.cpu.pool import NativeLaunch, NativePool, StepList
from lostwax.backends.cpu.target import CPU
from lostwax.backends.proof.kit import Environment, Variant, certify_all
from lostwax.backends.runtime.kernel_parameters import PackedParameters
from lostwax.frontend.capture import capture
from lostwax.frontend.config import parse_config
from lostwax.ir.contract.parameter import Null, Scalar
from lostwax.ir.passes.assign_formats import AssignFormatsPass
from lostwax.ir.passes.pipeline import run

BF16, E4M3 = np.dtype(ml_dtypes.bfloat16), np.dtype(ml_dtypes.float8_e4m3fn)
TILE, BLOCK = 16, 128
CODES = np.arange(256, dtype=np.uint8)
Array = NDArray[np.generic]


@pytest.fixture(params=["least", "most"])
def native(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> NativePool:
    """The library's kernels for what it asks for at least, or for all that is here."""
    if request.param == "least":
        least = set(libraries()[CPU.arch].features)
        monkeypatch.setattr(pool, "_processor_features", lambda: least)
    return NativePool(CPU.arch, library_bytes(CPU.arch))


def _run(native: NativePool, symbol: str, *arguments: Array | int | None) -> None:
    packed = PackedParameters(
        [
            Null()
            if each is None
            else Scalar("i32", each)
            if isinstance(each, int)
            else each.ctypes.data
            for each in arguments
        ]
    )
    launch = NativeLaunch(native.kernel(symbol), packed, 1 << 18, arguments)
    StepList(native, (launch,))()


def _appended(native: NativePool, rows: Array, dtype: np.dtype[np.generic]) -> Array:
    """Rows [T, W] as a cache of another type holds them."""
    count, width = rows.shape
    cache, slots = np.zeros((count, width), dtype), np.arange(count, dtype=np.int32)
    names = {BF16: "bf16", np.dtype(np.float32): "f32"}
    symbol = f"append_{names[rows.dtype]}_{names[dtype]}"
    real = np.array([count], np.int32)
    _run(native, symbol, cache, slots, rows, None, real, count, width, width, 0, width, 0, count)
    return cache


def _require_same(got: Array, want: Array) -> None:
    """The same bits, but that NaN is any NaN."""
    one, other = got.astype(np.float32), want.astype(np.float32)
    np.testing.assert_array_equal(np.isnan(one), np.isnan(other))
    real = ~np.isnan(other)
    np.testing.assert_array_equal(one[real].view(np.uint32), other[real].view(np.uint32))


@pytest.mark.parametrize("width", [32, 37])
def test_f32_is_rounded_to_nearest_even(native: NativePool, width: int) -> None:
    """Every bf16, the middle above it and what is on either side of that, in whole vectors and
    behind them."""
    every = np.arange(1 << 16, dtype=np.uint32) << 16
    near = np.concatenate([every + beside for beside in (0, 0x7FFF, 0x8000, 0x8001)])
    rows = near[: near.size // width * width].view(np.float32).reshape(-1, width)
    with np.errstate(over="ignore", invalid="ignore"):
        want = rows.astype(BF16)
    _require_same(_appended(native, rows, BF16), want)


@pytest.mark.parametrize("width", [32, 37])
def test_bf16_is_widened_exactly(native: NativePool, width: int) -> None:
    every = np.arange(1 << 16, dtype=np.uint16)
    rows = every[: every.size // width * width].view(BF16).reshape(-1, width)
    _require_same(_appended(native, rows, np.dtype(np.float32)), rows.astype(np.float32))


def _weights(native: NativePool, codes: Array, scales: Array, rows: int) -> Array:
    """Each number of an e4m3 weight [16, K], as products with one 1 give it, `rows` at a time."""
    count = codes.shape[1]
    packed, ones = np.ascontiguousarray(codes.T), np.eye(count, dtype=BF16)
    out, real = np.zeros((count, TILE), np.float32), np.array([rows], np.int32)
    for first in range(0, count, rows):
        here = ones[first : first + rows], out[first : first + rows]
        numbers = (len(here[0]), count, TILE, count, TILE)
        _run(
            native, "linear_bf16_f8_f32", here[0], packed, scales, here[1], real, *numbers,
        )  # fmt: skip
    return out.T


@pytest.mark.parametrize("rows", [1, 6, 64])
def test_every_e4m3_is_its_value_times_its_scale(native: NativePool, rows: int) -> None:
    """Few rows read it as it is stored, many once for all."""
    codes = CODES[(np.arange(TILE)[:, None] + np.arange(256)) % 256]
    codes = np.where(codes & 0x7F == 0x7F, 0, codes).astype(np.uint8)  # NaN times 0 is NaN
    scales = np.array([[0.0123, 7.5]], np.float32)
    wide = codes.view(E4M3).astype(np.float32) * np.repeat(scales, BLOCK, 1)
    np.testing.assert_array_equal(_weights(native, codes, scales, rows), wide)


@pytest.mark.parametrize("rows", [1, 64])
@pytest.mark.parametrize("code", [0x7F, 0xFF])
def test_an_e4m3_nan_stays_nan(native: NativePool, rows: int, code: int) -> None:
    codes = np.zeros((TILE, BLOCK), np.uint8)
    codes[3, 5] = code
    found = _weights(native, codes, np.ones((1, 1), np.float32), rows)
    assert np.isnan(found[3]).all()
    assert not np.isnan(np.delete(found, 3, 0)).any()


def test_gate_and_up_are_rounded_before_they_meet(native: NativePool) -> None:
    """256 + 1 is 256 in bf16, and 384 its own silu; of f32 sums the product would be 98816."""
    x, weights = np.ones((1, 2), BF16), np.zeros((2, 2, TILE), BF16)
    weights[:, 0] = 384
    for product, columns in ((0, slice(0, None, 2)), (1, slice(1, None, 2))):
        weights[product, :, columns] = np.array([[256], [1]])
    out, real = np.zeros((1, TILE), BF16), np.array([1], np.int32)
    gate, up = weights
    _run(native, "gate_up_bf16", x, gate, None, up, None, out, real, 1, 2, TILE, 2, TILE)
    assert (out == 256 * 384).all()


MIXED = ("cpu_native_append", "cpu_native_attend", "cpu_native_attend_dense")


@pytest.mark.parametrize(("dtype", "kv"), [("bf16", "f32"), ("f32", "bf16")])
def test_a_cache_of_another_type_than_the_models(dtype: str, kv: str) -> None:
    """In pages of 8, of which three hold fewer positions than a row selects at most."""
    captured = capture(parse_config(PLAIN), 8)
    chosen = AssignFormatsPass(dtype=dtype, kv=kv)
    module = run(captured.module, (chosen,))
    environment = Environment(CPU, native_driver, build_native, "executed", {})
    own = [low for low in lowerings(CPU) if low.name in MIXED]
    found = certify_all(
        module,
        captured.facts,
        own,
        environment,
        variants=[Variant("extend", every=True)],
        seeds=(0,),
    )
    assert {outcome.candidate.name for outcome in found if outcome.certificate} == set(MIXED)
