"""Native kernels at the edges beside fp64: odd sizes, NaN, infinities, ties, no rows.

On each instruction set of the library that this processor has. What lies behind the real rows of an
output is never written.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from native_kernels import PARKED, run_kernel
from numpy.typing import NDArray

from lostwax.backends.cpu import pool
from lostwax.backends.cpu.library import libraries, library_bytes
from lostwax.backends.cpu.pool import NativePool
from lostwax.backends.cpu.processor import is_of
from lostwax.backends.cpu.target import TARGETS

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
TILE = 16
MOST = 9
"""Rows that launches are compiled for."""
HERE = next(target for target in TARGETS if is_of(target.arch))


@pytest.fixture(params=["least", "most"])
def native(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> NativePool:
    """The library's kernels for what it asks for at least, or for all that is here."""
    if request.param == "least":
        least = set(libraries()[HERE.arch].features)
        monkeypatch.setattr(pool, "_processor_features", lambda: least)
    return NativePool(HERE.arch, library_bytes(HERE.arch))


def _random(*shape: int, seed: int = 0) -> F32:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def _real(rows: int) -> NDArray[np.int32]:
    return np.array([rows], np.int32)


def _packed(weight: F32) -> F32:
    """[N, K] as [N / 16][K][16]."""
    n, k = weight.shape
    whole = np.zeros((-(-n // TILE) * TILE, k), np.float32)
    whole[:n] = weight
    return np.ascontiguousarray(whole.reshape(-1, TILE, k).transpose(0, 2, 1))


def _odd(x: F32) -> F32:
    """The same with a row of NaN, one of infinities and one of ends, where there are so many."""
    for row, value in ((1, np.nan), (2, np.inf), (3, 3e38), (4, 1e-40)):
        if row < len(x):
            x[row, row % x.shape[1]] = value
    return x


def _require_close(got: F32, want: F64, rows: int) -> None:
    """Rows beside fp64, rounded where that is beyond f32; behind them nothing."""
    with np.errstate(over="ignore"):
        wanted = want[:rows].astype(np.float32)
    np.testing.assert_allclose(got[:rows], wanted, rtol=2e-5, atol=2e-5)
    assert (got[rows:] == PARKED).all()


@pytest.mark.parametrize("rows", [0, 1, 7, MOST])
@pytest.mark.parametrize(("k", "n"), [(1, 1), (3, 17), (33, 70), (515, 16)])
def test_products(native: NativePool, rows: int, k: int, n: int) -> None:
    """A row's NaN and infinities stay in it, whatever stands beside."""
    x, weight, out = _odd(_random(MOST, k)), _random(n, k, seed=1), np.full((MOST, n), PARKED)
    run_kernel(native, "linear_f32", x, _packed(weight), None, out, _real(rows), MOST, k, n, k, n)
    with np.errstate(invalid="ignore", over="ignore"):
        want = (x.astype(np.float64)[:, None] * weight.astype(np.float64)).sum(2)
    for row in range(rows):
        bound = 3e-6 * np.abs(x[row]).astype(np.float64) @ np.abs(weight.T).astype(np.float64)
        if np.isfinite(bound).all() and (bound < 1e30).all():
            assert (np.abs(out[row] - want[row]) <= bound + 1e-6).all()
        else:
            with np.errstate(over="ignore"):
                np.testing.assert_array_equal(np.isnan(out[row]), np.isnan(want[row]))
    assert (out[rows:] == PARKED).all()


@pytest.mark.parametrize("gate", [np.nan, np.inf, -np.inf, 1e4, -1e4, 88.5, -87.5, 0.0, -0.0])
def test_silu_at_its_ends(native: NativePool, gate: float) -> None:
    x, out = np.array([[1.0]], np.float32), np.full((1, 5), PARKED)
    gates, ups = np.full((5, 1), gate, np.float32), np.full((5, 1), 2.0, np.float32)
    run_kernel(
        native, "gate_up_f32", x, _packed(gates), None, _packed(ups), None, out, _real(1),
        1, 1, 5, 1, 5,
    )  # fmt: skip
    with np.errstate(over="ignore", invalid="ignore"):
        wide = np.float64(np.float32(gate))
        want = 2.0 * wide / (1.0 + np.exp(-wide))
    np.testing.assert_allclose(out[0], np.full(5, want), rtol=1e-5, atol=1e-35)


def _rms(x: F64, weight: F64) -> F64:
    return x / np.sqrt((x * x).mean(1, keepdims=True) + 1e-6) * weight


def _layer(x: F64, weight: F64) -> F64:
    middle = x - x.mean(1, keepdims=True)
    return middle / np.sqrt((middle * middle).mean(1, keepdims=True) + 1e-6) * weight + weight


@pytest.mark.parametrize("rows", [0, 1, MOST])
@pytest.mark.parametrize("width", [1, 7, 64, 131])
@pytest.mark.parametrize(
    ("symbol", "meaning"), [("rms_norm_f32", _rms), ("layer_norm_f32", _layer)]
)
def test_norms(
    native: NativePool, symbol: str, meaning: Callable[[F64, F64], F64], width: int, rows: int
) -> None:
    """A row of NaN or infinities is NaN where fp64's is, and no other row is."""
    x, weight, out = _random(MOST, width), _random(width, seed=1), np.full((MOST, width), PARKED)
    x[1, width // 2], x[2, 0] = np.nan, np.inf
    weights = (weight,) if symbol == "rms_norm_f32" else (weight, weight)
    run_kernel(native, symbol, x, *weights, out, _real(rows), MOST, width, width, width, 1e-6)
    with np.errstate(invalid="ignore"):
        want = meaning(x.astype(np.float64), weight.astype(np.float64))
    _require_close(out, want, rows)


@pytest.mark.parametrize(("seen", "k"), [(1, 4), (4, 4), (5, 4), (37, 4), (259, 64), (300, 1)])
def test_the_best_logits(native: NativePool, seen: int, k: int) -> None:
    """Ascending; the lowest position wins ties, infinity is best, NaN and -infinity never are."""
    rng = np.random.default_rng(seen)
    logits = rng.integers(-3, 3, (4, seen)).astype(np.float32)  # ties everywhere
    logits[1] = np.where(rng.random(seen) < 0.5, np.nan, logits[1])
    logits[2] = np.where(rng.random(seen) < 0.5, -np.inf, np.inf)
    logits[3] = np.nan
    positions, out = np.full(4, seen - 1, np.int32), np.full((4, k), 77, np.int32)
    run_kernel(native, "index_select", logits, positions, out, _real(4), 0, 4, k, seen)
    for row, own in zip(logits, out, strict=True):
        ranked = [i for i in np.argsort(-row, kind="stable") if row[i] > -np.inf]  # NaN is not
        want = sorted(ranked[:k]) if seen > k else list(range(seen))
        assert own.tolist() == [*want, *[-1] * (k - len(want))]


def test_rows_that_are_not_there_select_nothing(native: NativePool) -> None:
    logits, out = _random(3, 20), np.full((3, 4), 77, np.int32)
    positions = np.array([19, -1, 19], np.int32)
    run_kernel(native, "index_select", logits, positions, out, _real(2), 0, 3, 4, 20)
    assert (out[1:] == -1).all()
    assert (out[0] >= 0).all()


@pytest.mark.parametrize(
    ("experts", "groups", "stay", "k"), [(8, 1, 1, 3), (12, 4, 2, 3), (5, 5, 2, 2)]
)
def test_route_at_ties(native: NativePool, experts: int, groups: int, stay: int, k: int) -> None:
    """The lowest group and expert win; rows without a token choose none."""
    logits, bias = np.zeros((3, experts), np.float32), np.zeros(experts, np.float32)
    logits[1, -1] = 1.0
    positions = np.array([0, 5, -1], np.int32)
    ids, weights = np.full((3, k), 77, np.int32), np.full((3, k), PARKED)
    run_kernel(
        native, "route_f32", logits, bias, positions, ids, weights, _real(3), 3, experts, k, groups,
        stay, 1, experts, 2.5,
    )  # fmt: skip
    assert ids[0].tolist() == list(range(k))
    np.testing.assert_allclose(weights[0], 2.5 / k, rtol=1e-6)
    assert ids[1, 0] == experts - 1
    assert (ids[2] == -1).all()
    assert (weights[2] == 0).all()


def test_an_expert_that_nobody_chose_adds_nothing(native: NativePool) -> None:
    """Whatever lies at its place: it was never computed."""
    made = np.full((2 * 3, 5), np.nan, np.float32)
    made[1], made[3:] = 2.0, np.nan
    ids = np.array([[-1, 4, -1], [-1, -1, -1]], np.int32)
    weights, out = np.full((2, 3), 0.5, np.float32), np.full((3, 5), PARKED)
    run_kernel(native, "experts_sum_f32", made, ids, weights, out, _real(2), 3, 3, 5, 5)
    assert (out[0] == 1.0).all()
    assert (out[1] == 0.0).all()
    assert (out[2] == PARKED).all()
