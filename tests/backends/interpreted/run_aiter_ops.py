"""Runs the lowerings of single ops that call AITER, with a stand-in for it, on the CPU.

Argument: a target. Output: one JSON object, case name to the largest error relative to the
reference's RMS; of a choice of experts infinite where any row has other ones.
"""

from __future__ import annotations

import json
import sys
from types import ModuleType
from typing import Any
from unittest.mock import patch

import aiter_ops_stand_in
import numpy as np
from plain_run import rounded, run
from run_rocm_cases import PAGE, cache_of

from lostwax.backends.lowering import Lowering
from lostwax.backends.proof.plain_match import Value
from lostwax.backends.registry import find_target
from lostwax.backends.rocm.kernels import aiter_library
from lostwax.backends.rocm.lowerings.aiter_ops import AITER_OPS
from lostwax.ir.contract.program import Bucket
from lostwax.ir.contract.scale_layout import FP8_BLOCK, FP8_BLOCKS, FP8_ROW_BLOCKS
from lostwax.ir.contract.target import Target
from lostwax.ir.reference import core, dsa, moe
from lostwax.ir.reference.dtype import NUMPY_DTYPES, Scaled, widen
from lostwax.ir.reference.quant import quantise

BY_NAME: dict[str, Lowering] = {lowering.name: lowering for lowering in AITER_OPS}
ROWS, REAL = 5, 4
"""The last row has no token: its numbers are NaN where a reader would notice."""


def error(got: np.ndarray, want: np.ndarray) -> float:
    """Largest difference relative to the RMS; NaN counts as infinite."""
    worst = float(np.abs(got - want).max()) / float(np.sqrt(np.mean(want * want)))
    return worst if np.isfinite(worst) else float("inf")


def route_case(target: Target) -> float:
    """16 experts in 4 groups of which 2 are kept, 3 of each row."""
    rng = np.random.default_rng(0)
    logits, bias = rng.standard_normal((ROWS, 16)), rng.standard_normal(16) / 4
    logits[REAL:] = np.nan
    positions = np.array([3, 0, 7, 2, -1], np.int32)
    values = {
        "logits": Value(logits.shape, "f32"), "bias": Value((16,), "f32"),
        "positions": Value((ROWS,), "i32"), "op.ids": Value((ROWS, 3), "i32"),
        "op.weights": Value((ROWS, 3), "f32"),
    }  # fmt: skip
    consts: dict[str, Any] = {"n_group": 4, "topk_group": 2, "scale": 2.5, "normalise": True}
    data = {"logits": logits, "bias": bias, "positions": positions}
    out = run(
        BY_NAME["aiter_route"], Bucket(ROWS, 3, 1, ROWS), values,
        {("op", name): value for name, value in consts.items()}, data, target=target,
    )  # fmt: skip
    ids, weights = moe.route(logits.astype(np.float32), bias, positions, top_k=3, **consts)
    order, found = np.argsort(ids, 1), np.argsort(out["op.ids"], 1)
    if not np.array_equal(np.take_along_axis(ids, order, 1), np.sort(out["op.ids"], 1)):
        return float("inf")
    own = np.take_along_axis(out["op.weights"], found, 1)
    return error(own, np.take_along_axis(np.asarray(weights), order, 1))


def norm_case(target: Target) -> float:
    """Rows of 384, of very different sizes, one of zeros."""
    rng, encoding = np.random.default_rng(1), str(target.fp8_encoding)
    x = rounded(rng.standard_normal((ROWS, 384)) * [[1], [1e-3], [50], [0], [1]], "bf16")
    weight = rounded(1 + 0.1 * rng.standard_normal(384), "bf16")
    values = {
        "x": Value(x.shape, "bf16", (400, 1)), "weight": Value((384,), "bf16"),
        "normed": Value(x.shape, "f32"),
        "quantised": Value(x.shape, encoding, scale=FP8_ROW_BLOCKS),
        "quantised:scale": Value((ROWS, 3), "f32"),
    }  # fmt: skip
    consts = {("normed", "eps"): 1e-6, ("quantised", "scale_fmt"): "fp32"}
    out = run(
        BY_NAME["aiter_norm"], Bucket(ROWS, 3, 1, ROWS), values, consts, {"x": x, "weight": weight},
        target=target,
    )  # fmt: skip
    normed = np.asarray(core.rms_norm(x, weight, eps=1e-6)).astype(np.float32)
    want = widen(quantise(normed, scale_fmt="fp32", dtype=encoding, block=FP8_BLOCK))
    got = out["quantised"] * np.repeat(out["quantised:scale"], FP8_BLOCK, 1)
    return error(got, np.asarray(want))


def logits_case(target: Target) -> float:
    """Three requests of one, two and no rows; keys of the trash page and behind a row are NaN."""
    rng, encoding = np.random.default_rng(2), str(target.fp8_encoding)
    held, cache = cache_of(target, "index_row", (FP8_BLOCK,))
    heads, dim = 16, FP8_BLOCK
    tables = {
        "positions": np.array([13, 5, 6, 3, -1], np.int32),
        "q_starts": np.array([0, 1, 3, 4], np.int32),
        "page_table": np.pad(np.array([[1, 3], [2, 0], [4, 0]], np.int32), ((0, 0), (0, 6))),
    }
    stored = held.data.reshape(cache.shape).copy()
    stored[0] = 0xFF
    flat = rounded(rng.standard_normal((ROWS, heads, dim)), encoding)
    scales = np.abs(rng.standard_normal((ROWS, heads, 1))).astype(np.float32)
    weights = rng.standard_normal((ROWS, heads)).astype(np.float32)
    values = {
        "q": Value(flat.shape, encoding, scale=FP8_ROW_BLOCKS),
        "q:scale": Value(scales.shape, "f32"), "weights": Value(weights.shape, "f32"),
        "cache_in": cache, "op.out": Value((ROWS, 8 * PAGE), "f32"),
        "requests": Value((ROWS,), "i64"),
        **{name: Value(array.shape, "i32") for name, array in tables.items()},
    }  # fmt: skip
    data = {"q": flat, "q:scale": scales, "weights": weights, "cache_in": stored, **tables}
    data["requests"] = np.array([0, 1, 1, 2, 2])
    out = run(
        BY_NAME["aiter_logits"], Bucket(ROWS, 3, 8, ROWS), values, {("op", "scale"): 0.3}, data,
        target=target,
    )["op.out"][:REAL]  # fmt: skip
    q = Scaled(flat.astype(NUMPY_DTYPES[encoding]), scales, 1, FP8_BLOCK)
    given: dict[str, Any] = {"q": q, "weights": weights, "cache_in": held, **tables}
    want = np.asarray(dsa.index_logits(**given, scale=0.3))[:REAL]
    seen = np.isfinite(want)
    if not np.array_equal(out == -np.inf, ~seen):
        return float("inf")
    return error(out[seen], want[seen])


def _tiled(x: np.ndarray) -> np.ndarray:
    """[..., N, K] as [..., N / 16, K / 16, 16, 16]: what the weight form stores."""
    *batch, n, k = x.shape
    return np.moveaxis(x.reshape(*batch, n // 16, 16, k // 16, 16), -3, -2).copy()


def experts_case(target: Target) -> float:
    """4 experts of 256 by 128, 2 of each row, of the last none."""
    rng, encoding = np.random.default_rng(3), str(target.fp8_encoding)
    count, inter, dim = 4, 256, 128

    def weight(rows: int, cols: int) -> Scaled:
        of = rounded(rng.standard_normal((count, rows, cols)), encoding)
        scales = (1 + rng.random((count, rows // 128, cols // 128))).astype(np.float32) / dim**0.5
        return Scaled(of.astype(NUMPY_DTYPES[encoding]), scales, FP8_BLOCK, FP8_BLOCK)

    gate, up, down = weight(inter, dim), weight(inter, dim), weight(dim, inter)
    x = quantise(
        rng.standard_normal((ROWS, dim)).astype(np.float32), scale_fmt="fp32", dtype=encoding,
        block=FP8_BLOCK,
    )  # fmt: skip
    ids = np.array([[0, 3], [2, 1], [1, 0], [3, 2], [-1, -1]], np.int32)
    weights = rng.random((ROWS, 2)).astype(np.float32)
    weights[REAL:] = np.nan
    joined = np.concatenate([gate.values, up.values], 1).astype(np.float64)
    stored = {
        "gate": Value((count, 2 * inter // 16, dim // 16, 16, 16), encoding),
        "gate:scale": Value((count, 2 * inter // 128, dim // 128), "f32"),
        "down": Value((count, dim // 16, inter // 16, 16, 16), encoding),
        "down:scale": Value((count, dim // 128, inter // 128), "f32"),
    }
    values = {
        "x": Value((ROWS, dim), encoding, scale=FP8_ROW_BLOCKS),
        "x:scale": Value((ROWS, dim // 128), "f32"),
        "ids": Value(ids.shape, "i32"), "weights": Value(weights.shape, "f32"),
        "gate": Value((count, inter, dim), encoding, scale=FP8_BLOCKS),
        "up": Value((count, inter, dim), encoding, scale=FP8_BLOCKS),
        "down": Value((count, dim, inter), encoding, scale=FP8_BLOCKS),
        "op.out": Value((ROWS, dim), "bf16"),
    }  # fmt: skip
    data = {
        "x": x.values.astype(np.float64), "x:scale": x.scales, "ids": ids, "weights": weights,
        "gate": _tiled(joined), "gate:scale": np.concatenate([gate.scales, up.scales], 1),
        "down": _tiled(down.values.astype(np.float64)), "down:scale": down.scales,
    }  # fmt: skip
    out = run(
        BY_NAME["aiter_moe"], Bucket(ROWS, 3, 1, ROWS), values, {("op", "hidden_fmt"): "fp32"},
        data, stored=stored, target=target,
    )  # fmt: skip
    want = np.asarray(moe.experts(x, ids, weights, gate, up, down, hidden_fmt="fp32"))[:REAL]
    return error(out["op.out"][:REAL], want)


CASES = {
    "route": route_case, "norm": norm_case, "logits": logits_case, "experts": experts_case,
}  # fmt: skip


def _require(*calls: str) -> None:
    """Nothing is installed, and nothing is asked for."""


def _loaded(module: str) -> ModuleType:
    return aiter_ops_stand_in


def main() -> None:
    """Print the errors."""
    target = find_target(sys.argv[1])[1]
    with (
        patch.object(aiter_library, "require_calls", _require),
        patch.object(aiter_library, "_loaded", _loaded),
    ):
        print(json.dumps({name: case(target) for name, case in CASES.items()}))


if __name__ == "__main__":
    main()
