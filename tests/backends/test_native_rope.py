"""The native table of rotations, at positions where f32 angles would be wrong."""

from __future__ import annotations

import numpy as np
import pytest
from native_kernels import build_native, native_driver

from lostwax.backends.portable.kernels.rope import correction_range
from lostwax.backends.runtime.fenced_buffers import FencedBuffers
from lostwax.ir.contract.kernel import KernelSource
from lostwax.ir.contract.parameter import Pointer, Scalar
from lostwax.ir.contract.program import KernelLaunch, View

POSITIONS = np.array([0, 1, 2, 3, 77, 4095, 100_003, 163_839, 1_000_001, 5], np.int32)
REAL = 9
DIM, THETA, FACTOR = 64, 10_000.0, 40.0
MAGNITUDE = 1.25


def _dense(name: str, dtype: str, *shape: int) -> View:
    strides = tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape)))
    return View(space="input", name=name, dtype=dtype, shape=shape, strides=strides)


def _table(interleaved: bool, factor: float) -> np.ndarray:
    low, high = correction_range(DIM, THETA, 4096, 32, 1)
    rows = len(POSITIONS)
    table = _dense("table", "f32", 2, rows, DIM)
    kernel = build_native(KernelSource(language="cpp", path="native.cpp", symbol="rope_table"))
    launch = KernelLaunch(
        binary=kernel.binary,
        symbol=kernel.symbol,
        grid=(1, 1, 1),
        block=(1, 1, 1),
        params=(
            Pointer(_dense("positions", "i32", rows)),
            Pointer(table),
            Pointer(_dense("num_rows", "i32", 1)),
            *(Scalar("i32", n) for n in (rows, DIM, int(interleaved), low, high)),
            *(Scalar("f32", x) for x in (THETA, factor, MAGNITUDE)),
        ),
        shared_bytes=0,
        op="prepare",
    )
    driver = native_driver()
    given = {"positions": POSITIONS, "num_rows": np.array([REAL], np.int32)}
    buffers = FencedBuffers(driver, given, (launch,))
    driver.bind(launch, buffers.resolve)()
    buffers.check_left()
    return buffers.read(table)


def _expected(interleaved: bool, factor: float) -> np.ndarray:
    low, high = correction_range(DIM, THETA, 4096, 32, 1)
    pair = np.arange(DIM // 2, dtype=np.float64)
    ramp = np.clip((pair - low) / (high - low), 0, 1)
    frequency = THETA ** (-2 * pair / DIM) * (ramp / factor + 1 - ramp)
    angles = POSITIONS[:, None].astype(np.float64) * frequency
    pairs = [np.cos(angles), np.cos(angles)], [-np.sin(angles), np.sin(angles)]
    axis = -1 if interleaved else -2
    return np.stack([np.stack(p, axis).reshape(-1, DIM) for p in pairs]) * MAGNITUDE


@pytest.mark.parametrize("factor", [1.0, FACTOR])
@pytest.mark.parametrize("interleaved", [True, False])
def test_cosines_and_sines_are_numpys_at_any_position(interleaved: bool, factor: float) -> None:
    found = _table(interleaved, factor)
    want = _expected(interleaved, factor)
    np.testing.assert_allclose(found[:, :REAL], want[:, :REAL], rtol=0, atol=1.5e-7)
    assert np.isnan(found[:, REAL:]).all(), "rows behind the real ones are left alone"
