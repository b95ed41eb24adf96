"""The top-k kernel's own source, run on the CPU by fibers, against a stable sort."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from guarded_buffers import guarded, require_guards
from numpy.typing import NDArray
from twin_launches import twin_function

import lostwax.backends.cuda.kernels

TWIN = Path(__file__).parent / "cuda_twin"
SOURCE = Path(lostwax.backends.cuda.kernels.__file__).parent / "topk.cu"
FORMS = [(1, 64, 1, 1), (1, 64, 4, 0), (2, 64, 2, 1), (4, 64, 1, 0), (1, 1024, 1, 1), (8, 32, 4, 1)]

Row = NDArray[np.float32]
Rows = NDArray[np.float32]
Topk = Callable[..., NDArray[np.int32]]
"""Of scores [rows, length], k and the number of real rows: [rows, k]."""


def expected(row: Row, k: int) -> NDArray[np.int32]:
    """The k largest, lowest index first among equals, -inf and NaN never; ascending, -1 tail."""
    allowed = np.flatnonzero(~np.isnan(row) & (row != -np.inf))
    order = allowed[np.argsort(-row[allowed], kind="stable")][:k]
    return np.concatenate([np.sort(order), np.full(k - len(order), -1)]).astype(np.int32)


def rows(length: int) -> dict[str, Row]:
    """Rows of every kind that a selection by value can go wrong on."""
    rng = np.random.default_rng(length)
    x = rng.standard_normal(length).astype(np.float32)
    holes = x.copy()
    holes[rng.random(length) < 0.3] = -np.inf
    holes[rng.random(length) < 0.2] = np.nan
    short = x.copy()
    short[length // 3 :] = -np.inf
    extremes = rng.choice(
        np.array([0.0, -0.0, np.inf, 1e-45, -1e-45, 3.4e38, -3.4e38], np.float32), length
    )
    made = {
        "random": x,
        "narrow": 1 + 1e-6 * x,
        "tied": np.round(x * 2) / 2,
        "constant": np.full(length, -1.5, np.float32),
        "rising": np.sort(x),
        "falling": np.sort(x)[::-1].copy(),
        "holes": holes,
        "short": short,
        "masked": np.full(length, -np.inf, np.float32),
        "extremes": extremes,
        "relu": np.maximum(x, 0) * (rng.random(length) < 0.1),
    }
    return {kind: row.astype(np.float32) for kind, row in made.items()}


@pytest.fixture(scope="module", params=FORMS, ids=lambda f: "c{}t{}v{}a{}".format(*f))
def topk(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[int, Topk]:
    """The kernel for one form: its capacity in scores and a function of rows."""
    if shutil.which("g++") is None:
        pytest.skip("g++ is needed to run the kernel's source on the CPU")
    cluster, threads, vectors, aligned = request.param
    library = tmp_path_factory.mktemp("twin") / "topk.so"
    macros = {"CLUSTER": cluster, "THREADS": threads, "VECTORS": vectors, "ALIGNED": aligned}
    defines = [f"-D{n}={v}" for n, v in macros.items()] + [f'-DTOPK_SOURCE="{SOURCE}"']
    flags = ["-std=c++20", "-O1", "-w", "-shared", "-fPIC", f"-I{TWIN}"]
    command = ["g++", *flags, *defines, "-o", str(library), str(TWIN / "topk_twin.cpp")]
    subprocess.run(command, check=True)
    function = twin_function(library, "topk")
    pointer = ctypes.c_void_p

    def run(rows: Rows, k: int, real: int, first: int = 0) -> NDArray[np.int32]:
        scores, held = guarded(rows.nbytes), guarded(4 * len(rows) * k)
        scores[:] = np.ascontiguousarray(rows).view(np.uint8).reshape(-1)
        out = held.view(np.int32).reshape(len(rows), k)
        out[:] = -7
        sizes = (ctypes.c_int(n) for n in (len(rows), first, real, rows.shape[1], k))
        function(pointer(scores.ctypes.data), *sizes, pointer(held.ctypes.data))
        require_guards({"scores": scores, "out": held})
        return out

    return cluster * threads * vectors * 4, run


@pytest.mark.parametrize("fraction", [1.0, 0.73])
@pytest.mark.parametrize("k", [1, 32, 200])
def test_the_kernel_selects_exactly_what_a_stable_sort_does(
    topk: tuple[int, Topk], k: int, fraction: float
) -> None:
    capacity, run = topk
    # A cluster's CTAs take multiples of 4 scores, so the last few of the capacity may not fit.
    length = max(1, int((capacity - 60) * fraction))
    for kind, row in rows(length).items():
        np.testing.assert_array_equal(run(row[None], k, 1)[0], expected(row, k), err_msg=kind)


def test_k_larger_than_the_row_takes_every_score(topk: tuple[int, Topk]) -> None:
    _, run = topk
    for length in (1, 3, 4, 5, 31):
        row = rows(64)["holes"][:length].copy()
        np.testing.assert_array_equal(run(row[None], 40, 1)[0], expected(row, 40))


@pytest.mark.parametrize("real", [0, 1, 3, 4])
def test_rows_behind_the_real_ones_select_nothing(topk: tuple[int, Topk], real: int) -> None:
    """NaN and huge scores of padding are not looked at: every place of its selection is -1."""
    _, run = topk
    scores = np.stack([rows(100)[kind] for kind in ("random", "tied", "holes", "short")])
    padded = scores.copy()
    padded[real:] = 1e30
    found = run(padded, 32, real)
    np.testing.assert_array_equal(found[:real], run(scores, 32, 4)[:real])
    assert (found[real:] == -1).all()


def test_a_tile_of_rows_counts_from_its_first(topk: tuple[int, Topk]) -> None:
    _, run = topk
    scores = np.stack([rows(100)[kind] for kind in ("random", "tied", "holes", "short")])
    found = run(scores, 32, 7, 5)
    np.testing.assert_array_equal(found[:2], run(scores, 32, 4)[:2])
    assert (found[2:] == -1).all()
