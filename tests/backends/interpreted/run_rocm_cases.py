"""Runs kernels that only AMD's GPUs need in Triton's interpreter: the selection cut into parts, and
attention and logits over caches in either encoding of fp8.

A program of its own because Triton decides at import whether it interprets. Arguments: maybe a
folder of kernels that stand in for those of the package, and which cases. Output: one JSON object,
case name to its error beside the fp64 reference, of selections 1 where any position differs.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
from plain_run import rounded, run
from rocm_faults import FILES

from lostwax.backends.gpu_kernels.lowerings.attend import ATTEND, ATTEND_ALL
from lostwax.backends.gpu_kernels.lowerings.index_logits import INDEX_LOGITS
from lostwax.backends.gpu_kernels.lowerings.topk import INDEX_TOPK_PARTS, TOPK_PARTS
from lostwax.backends.proof.plain_match import Value
from lostwax.backends.registry import find_target
from lostwax.ir.contract.cache_layout import LAYOUTS, in_encoding
from lostwax.ir.contract.program import Bucket
from lostwax.ir.contract.scale_layout import FP8_BLOCK, FP8_ROW_BLOCKS
from lostwax.ir.contract.target import Target
from lostwax.ir.reference import dsa, mla
from lostwax.ir.reference.cache_bytes import CacheBytes
from lostwax.ir.reference.dtype import NUMPY_DTYPES, Scaled, round_to
from lostwax.ir.reference.quant import quantise

PAGE = 8
TARGETS = tuple(find_target(f"rocm-gfx{number}")[1] for number in (942, 950))


def stand_in(folder: Path) -> None:
    """Let the kernels in `folder` be those of the package."""
    for name in FILES:
        module_name = f"lostwax.backends.gpu_kernels.{name}"
        spec = spec_from_file_location(module_name, folder / f"{name}.py")
        assert spec
        assert spec.loader
        sys.modules[module_name] = module = module_from_spec(spec)
        spec.loader.exec_module(module)


def hard_rows() -> np.ndarray:
    """Rows of ties, of NaN, of fewer numbers than are wanted, of none, of zeros of both signs."""
    x = np.random.default_rng(0).standard_normal((8, 2500)).round(1)
    x[1, 30:] = -np.inf
    x[2, ::3] = np.nan
    x[3] = 1.0
    x[4] = np.where(np.arange(2500) % 2, 0.0, -0.0)
    x[5] = -np.inf
    x[6, ::5] = np.inf
    return x.astype(np.float32)


def topk_case(target: Target, k: int, parts: int, real: int = 7) -> float:
    """The positions of all rows; those behind the real ones select nothing."""
    x = hard_rows()
    rows = len(x)
    values = {"logits": Value(x.shape, "f32", (2504, 1)), "op.out": Value((rows, k), "i32")}
    bucket = Bucket(rows, rows, 1, rows)
    out = run(
        TOPK_PARTS, bucket, values, {("op", "k"): k}, {"logits": x}, {"parts": parts}, real,
        target=target,
    )["op.out"]  # fmt: skip
    want = np.asarray(dsa.topk(x, k=k))
    want[real:] = -1
    return float(not np.array_equal(out, want))


def cache_of(target: Target, layout: str, parts: tuple[int, ...]) -> tuple[Any, Value]:
    """Pages of rows in a layout of the target's encoding, and their description."""
    layout = in_encoding(layout, target.fp8_encoding)
    form, pages, rng = LAYOUTS[layout], 5, np.random.default_rng(sum(parts))
    slots = np.arange(pages * PAGE)
    rows = rng.standard_normal((len(slots), sum(parts))) * 2.0 ** rng.integers(
        -4, 5, (len(slots), 1)
    )
    if not form.scale_block:
        stored = rounded(rows, form.dtypes[0]).reshape(pages, PAGE, -1)
        return stored, Value(stored.shape, form.dtypes[0], parts=parts, layout=layout)
    first = quantise(rows[:, : parts[0]], scale_fmt="fp32", dtype=form.dtypes[0], block=FP8_BLOCK)
    rest = [round_to(rows[:, parts[0] :], "bf16")] if len(parts) > 1 else []
    held = CacheBytes.zeros(layout, pages, PAGE, parts).written([first, *rest], slots)
    shape = held.data.shape if form.is_paged else (pages, PAGE, form.row_bytes(parts))
    return held, Value(shape, "u8", parts=parts, layout=layout)


def _bytes_of(held: Any, value: Value) -> np.ndarray:
    return held.data.reshape(value.shape) if isinstance(held, CacheBytes) else held


def _tables(rows: int) -> dict[str, np.ndarray]:
    """Two rows a request but for the first, over two pages each."""
    return {
        "positions": np.array([13, 5, 6, 15, 3][:rows], np.int32),
        "q_starts": np.array([0, 1, 3, rows], np.int32),
        "page_table": np.array([[1, 3], [2, 4], [4, 0]], np.int32),
    }


def _table_values(data: dict[str, np.ndarray]) -> dict[str, Value]:
    return {name: Value(array.shape, "i32") for name, array in data.items()}


def attend_case(target: Target, layout: str, dtype: str, *, dense: bool = False) -> float:
    """Attention over a cache of fp8; latents of more than one scale."""
    rows, heads, nope, value, top = 5, 3, 16, 24, 16
    latent, rope = 256, 16
    held, cache = cache_of(target, layout, (latent, rope))
    rng, tables = np.random.default_rng(1), _tables(rows)
    q = rounded(rng.standard_normal((rows, heads, nope + rope)), dtype)
    kv_b = rounded(rng.standard_normal((heads * (nope + value), latent)) / latent**0.5, dtype)
    selection = np.where(np.arange(top) <= tables["positions"][:, None], np.arange(top), -1)
    values = {
        "q_nope": Value((rows, heads, nope), dtype, (heads * (nope + rope), nope + rope, 1)),
        "q_pe": Value((rows, heads, rope), dtype, (heads * (nope + rope), nope + rope, 1)),
        "kv_b": Value(kv_b.shape, dtype),
        "cache_in": cache,
        "selection": Value(selection.shape, "i32"),
        "op.out": Value((rows, heads * value), dtype),
        **_table_values(tables),
    }
    data = {"q_nope": q[..., :nope], "q_pe": q[..., nope:], "kv_b": kv_b}
    data |= {"selection": selection.astype(np.int32), **tables}
    given = data | {"cache_in": _bytes_of(held, cache)}
    lowering = ATTEND_ALL if dense else ATTEND
    bucket = Bucket(rows, 3, 2, rows)
    out = run(lowering, bucket, values, {("op", "scale"): 0.1}, given, {"splits": 2}, target=target)
    want = np.asarray(mla.attend(**data, cache_in=held, scale=0.1))
    return float(np.linalg.norm(out["op.out"] - want) / np.linalg.norm(want))


def _index_inputs(
    target: Target, layout: str
) -> tuple[dict[str, Value], dict[str, Any], dict[str, Any]]:
    """Values, what the kernels are given, and what the reference is."""
    rows, heads, dim, encoding = 5, 3, 64, str(target.fp8_encoding)
    held, cache = cache_of(target, layout, (dim,))
    rng, tables = np.random.default_rng(2), _tables(rows)
    flat = rounded(rng.standard_normal((rows, heads, dim)), encoding)
    scales = np.abs(rng.standard_normal((rows, heads, 1))).astype(np.float32)
    q = Scaled(flat.astype(NUMPY_DTYPES[encoding]), scales, 1, FP8_BLOCK)
    weights = rng.standard_normal((rows, heads)).astype(np.float32)
    values = {
        "q": Value((rows, heads, dim), encoding, scale=FP8_ROW_BLOCKS),
        "q:scale": Value((rows, heads, 1), "f32"),
        "weights": Value((rows, heads), "f32"),
        "cache_in": cache,
        **_table_values(tables),
    }
    given = {"q": flat, "q:scale": scales, "weights": weights, **tables}
    given["cache_in"] = _bytes_of(held, cache)
    return values, given, {"q": q, "weights": weights, "cache_in": held, **tables}


def index_case(target: Target, layout: str) -> float:
    """The indexer's logits over keys of fp8."""
    values, given, reference = _index_inputs(target, layout)
    values["op.out"] = Value((5, 2 * PAGE), "f32")
    bucket = Bucket(5, 3, 2, 5)
    out = run(INDEX_LOGITS, bucket, values, {("op", "scale"): 0.3}, given, target=target)["op.out"]
    want = np.asarray(dsa.index_logits(**reference, scale=0.3))
    seen = np.isfinite(want)
    if not np.array_equal(seen, np.isfinite(out)):
        return float("inf")
    return float(np.linalg.norm(out[seen] - want[seen]) / np.linalg.norm(want[seen]))


def index_topk_case(target: Target) -> float:
    """Logits and selection in tiles of two rows."""
    values, given, reference = _index_inputs(target, "index_paged")
    k = 4
    values |= {"logits": Value((5, 2 * PAGE), "f32"), "topk": Value((5, k), "i32")}
    attributes = {("logits", "scale"): 0.3, ("topk", "k"): k}
    bucket, knobs = Bucket(5, 3, 2, 5), {"rows_at_once": 128, "tile_rows": 1}
    out = run(INDEX_TOPK_PARTS, bucket, values, attributes, given, knobs, target=target)["topk"]
    want = np.asarray(dsa.topk(dsa.index_logits(**reference, scale=0.3), k=k))
    return float(not np.array_equal(out, want))


def cases() -> Iterator[tuple[str, Callable[[], float]]]:
    """All of them, one target after another."""
    for target in TARGETS:
        for k, parts in ((40, 2), (40, 1), (3, 3), (2600, 2)):
            yield f"{target.arch} topk {k} of {parts}", partial(topk_case, target, k, parts)
        for layout in ("fp8_656", "fp8_576"):
            for dtype in ("f32", "bf16"):
                name = f"{target.arch} attend {layout} {dtype}"
                yield name, partial(attend_case, target, layout, dtype)
        every = partial(attend_case, target, "fp8_656", "f32", dense=True)
        yield f"{target.arch} attend all f32", every
        for layout in ("index_paged", "index_row"):
            yield f"{target.arch} logits {layout}", partial(index_case, target, layout)
        yield f"{target.arch} index topk", partial(index_topk_case, target)


def main() -> None:
    """Print the errors."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folders", type=Path, nargs="*")
    parser.add_argument("--cases", nargs="+", default=[""], help="only those that begin so")
    options = parser.parse_args()
    for folder in options.folders:
        stand_in(folder)
    begins = tuple(options.cases)
    print(json.dumps({name: case() for name, case in cases() if name.startswith(begins)}))


if __name__ == "__main__":
    main()
