"""Runs attention in the expanded form over its Triton kernels in Triton's interpreter.

Arguments: maybe a folder of kernels that stand in for those of the package, and which cases.
Output: one JSON object, case name to the largest error of a row relative to the reference's row.
"""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
from plain_run import POISON, rounded, run

from lostwax.backends.gpu_kernels.lowerings.expanded_mha import EXPANDED_MHA, STARTS
from lostwax.backends.proof.plain_match import Value
from lostwax.backends.registry import find_target
from lostwax.ir.contract.cache_layout import LAYOUTS, in_encoding
from lostwax.ir.contract.program import Bucket, Guard, Linear
from lostwax.ir.contract.scale_layout import FP8_BLOCK
from lostwax.ir.reference import mla
from lostwax.ir.reference.cache_bytes import Cache, CacheBytes
from lostwax.ir.reference.dtype import round_to
from lostwax.ir.reference.quant import quantise

CAUSAL, MASKED = EXPANDED_MHA
LATENT, ROPE, HEADS, PAGE, PAGES = 512, 64, 2, 16, 6
ROWS, TOGETHER, TOP = 256, 192, 24
"""Of the bucket; the guard's bound of all contexts; positions that a row selects."""
REQUESTS = ((0, 1), (50, 39), (0, 0), (60, 3))
"""Cached positions before each request's new rows. The bucket has room for one more."""


def tables() -> tuple[dict[str, np.ndarray], int]:
    """Step inputs, and how many rows are real."""
    counts = [new for _, new in REQUESTS] + [0]
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    positions = np.full(ROWS, -1, np.int32)
    for (before, new), start in zip(REQUESTS, starts, strict=False):
        positions[start : start + new] = before + np.arange(new)
    reqs = len(counts)
    pages = 1 + np.random.default_rng(0).permutation(reqs * PAGES)
    found = {
        "positions": positions,
        "q_starts": starts,
        "page_table": pages.reshape(reqs, PAGES).astype(np.int32),
        "kv_lens": np.array([*(b + n if n else 0 for b, n in REQUESTS), 0], np.int32),
    }
    return found, int(starts[-1])


def cached(layout: str, found: dict[str, np.ndarray]) -> tuple[Value, np.ndarray, Cache]:
    """The cache's value, its bytes or numbers, and what the reference reads. NaN is what no request
    has, the trash page, too."""
    num = 1 + found["page_table"].size
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((num * PAGE, LATENT + ROPE))
    owned = np.zeros(num * PAGE, bool)
    for table, length in zip(found["page_table"], found["kv_lens"], strict=True):
        at = np.arange(length)
        owned[table[at // PAGE] * PAGE + at % PAGE] = True
    if layout == "bf16":
        stored = rounded(np.where(owned[:, None], rows, np.nan), "bf16").reshape(num, PAGE, -1)
        return Value(stored.shape, "bf16", parts=(LATENT, ROPE)), stored, stored
    form = LAYOUTS[layout]
    if not form.scale_block:
        held = rounded(rows, form.dtypes[0])
        stored = np.where(owned[:, None], held, np.nan).reshape(num, PAGE, -1)
        kind = Value(stored.shape, form.dtypes[0], parts=(LATENT, ROPE), layout=layout)
        return kind, stored, stored
    first = quantise(rows[:, :LATENT], scale_fmt="fp32", dtype=form.dtypes[0], block=FP8_BLOCK)
    held = CacheBytes.zeros(layout, num, PAGE, (LATENT, ROPE)).written(
        [first, round_to(rows[:, LATENT:], "bf16")], np.arange(len(rows))
    )
    data = held.data.reshape(num * PAGE, -1).copy()
    data[~owned] = 0xFF
    shape = (num, PAGE, form.row_bytes((LATENT, ROPE)))
    return Value(shape, "u8", parts=(LATENT, ROPE), layout=layout), data.reshape(shape), held


def case(arch: str, layout: str, masked: bool) -> float:
    """A ragged step; infinite where a row behind the real ones is written."""
    target = find_target(f"rocm-{arch}")[1]
    found, real = tables()
    kind, stored, reference = cached(in_encoding(layout, target.fp8_encoding), found)
    rng = np.random.default_rng(2)
    q = rounded(rng.standard_normal((ROWS, HEADS, 128 + ROPE)), "bf16")
    q[real:] = np.nan
    kv_b = rounded(rng.standard_normal((HEADS * 256, LATENT)) / LATENT**0.5, "bf16")
    selection = np.full((ROWS, TOP if masked else 96), -1, np.int32)
    for row, position in enumerate(found["positions"][:real]):
        chosen = np.sort(rng.permutation(position + 1)[: selection.shape[1]])
        selection[row, : len(chosen)] = chosen
    if masked:
        selection[real - 1] = -1  # a row with nothing selected
        selection[real:] = 1 << 28
    query = (HEADS * (128 + ROPE), 128 + ROPE, 1)
    values = {
        "q_nope": Value((ROWS, HEADS, 128), "bf16", query),
        "q_pe": Value((ROWS, HEADS, ROPE), "bf16", query),
        "kv_b": Value(kv_b.shape, "bf16"), "cache_in": kind,
        "selection": Value(selection.shape, "i32"), "op.out": Value((ROWS, HEADS * 128), "bf16"),
        STARTS: Value((2, len(found["kv_lens"]) + 1), "i32"),
        **{name: Value(array.shape, "i32") for name, array in found.items()},
    }  # fmt: skip
    data = {"q_nope": q[..., :128], "q_pe": q[..., 128:], "kv_b": kv_b, "selection": selection}
    guard = Guard("few", (Linear({"total_kv": 1}, TOGETHER),), selects_all=not masked)
    knobs = {"tile_rows": 64, "block_keys": 16}
    out = run(
        MASKED if masked else CAUSAL, Bucket(ROWS, len(found["kv_lens"]), PAGES),
        values, {("op", "scale"): 0.1}, data | found | {"cache_in": stored}, knobs, real,
        prepares=True, target=target, segment="extend", guard=guard,
    )["op.out"]  # fmt: skip
    short: dict[str, Any] = {n: array[:real] for n, array in data.items() if n != "kv_b"}
    short |= {"kv_b": kv_b, "positions": found["positions"][:real], "cache_in": reference}
    short |= {name: found[name] for name in ("q_starts", "page_table")}
    want = np.asarray(mla.attend(**short, scale=0.1))
    if not (out[real:] == rounded(np.array([POISON]), "bf16")[0]).all():
        return float("inf")
    size = np.maximum(np.linalg.norm(want, axis=1), 1e-30)
    worst = float((np.linalg.norm(out[:real] - want, axis=1) / size).max())
    return worst if np.isfinite(worst) else float("inf")


CASES = {
    f"{arch} {layout} {'masked' if masked else 'causal'}": partial(case, arch, layout, masked)
    for arch in ("gfx942", "gfx950")
    for layout in ("bf16", "fp8_656", "fp8_576")
    for masked in (False, True)
}


def stand_in(folder: Path) -> None:
    """Let the kernels in `folder` be those of the package."""
    name = "lostwax.backends.gpu_kernels.expanded_attention"
    spec = spec_from_file_location(name, folder / "expanded_attention.py")
    assert spec
    assert spec.loader
    sys.modules[name] = module = module_from_spec(spec)
    spec.loader.exec_module(module)


def main() -> None:
    """Print the errors."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folders", type=Path, nargs="*")
    parser.add_argument("--cases", nargs="+", default=[""], help="only those that begin so")
    options = parser.parse_args()
    for folder in options.folders:
        stand_in(folder)
    begins = tuple(options.cases)
    print(json.dumps({name: each() for name, each in CASES.items() if name.startswith(begins)}))


if __name__ == "__main__":
    main()
