"""Runs the lowering that calls AITER with a stand-in for it, kernels in Triton's interpreter.

Arguments: heads and target. Output: one JSON object, case name to the largest error relative to the
reference's RMS.
"""

from __future__ import annotations

import json
import sys
from types import ModuleType
from unittest.mock import patch

import aiter_stand_in
import numpy as np
from plain_run import rounded, run

from lostwax.backends.proof.plain_match import Value
from lostwax.backends.registry import find_target
from lostwax.backends.rocm.kernels import aiter_library
from lostwax.backends.rocm.lowerings.aiter import AITER
from lostwax.ir.contract.program import Bucket
from lostwax.ir.reference import mla

PAGE, KEYS, PAGES, LATENT, ROPE = 16, 32, 3, 512, 64
POSITIONS = np.array([40, 41, 3, 45, 0], np.int32)
STARTS = np.array([0, 2, 3, 4, 4], np.int32)
"""Requests of two rows and of one each; the last has none, and neither has the last row."""
REAL = 4
FAR = 1 << 28
"""What stands in the selection of a row without a token."""


def _require(*calls: str) -> None:
    """Nothing is installed, and nothing is asked for."""


def _loaded(module: str) -> ModuleType:
    return aiter_stand_in


def case(heads: int, target: str) -> float:
    """One number of heads; pages that no request has are NaN, the trash page, too."""
    rng = np.random.default_rng(heads)
    reqs, rows, nope, value = len(STARTS) - 1, len(POSITIONS), 32, 16
    table = (1 + rng.permutation(reqs * PAGES)).reshape(reqs, PAGES).astype(np.int32)
    stored = rounded(rng.standard_normal((2 + reqs * PAGES, PAGE, LATENT + ROPE)), "bf16")
    stored[0] = stored[-1] = np.nan
    selection = np.full((rows, KEYS), -1, np.int32)
    for row in range(REAL):
        count = min(int(POSITIONS[row]) + 1, KEYS)
        selection[row, :count] = np.sort(rng.permutation(POSITIONS[row] + 1)[:count])
    selection[REAL:] = FAR
    q = rounded(rng.standard_normal((rows, heads, nope + ROPE)), "bf16")
    kv_b = rounded(rng.standard_normal((heads * (nope + value), LATENT)) / LATENT**0.5, "bf16")
    strides = (heads * (nope + ROPE), nope + ROPE, 1)
    values = {
        "q_nope": Value((rows, heads, nope), "bf16", strides),
        "q_pe": Value((rows, heads, ROPE), "bf16", strides),
        "kv_b": Value(kv_b.shape, "bf16"),
        "cache_in": Value(stored.shape, "bf16", parts=(LATENT, ROPE)),
        "selection": Value(selection.shape, "i32"),
        "positions": Value((rows,), "i32"),
        "q_starts": Value((reqs + 1,), "i32"),
        "page_table": Value(table.shape, "i32"),
        "op.out": Value((rows, heads * value), "bf16"),
    }
    data = {
        "q_nope": q[..., :nope], "q_pe": q[..., nope:], "kv_b": kv_b, "cache_in": stored,
        "selection": selection, "positions": POSITIONS, "q_starts": STARTS, "page_table": table,
    }  # fmt: skip
    facts, bucket = find_target(target)[1], Bucket(rows, reqs, PAGES, 0)
    with (
        patch.object(aiter_library, "require_calls", _require),
        patch.object(aiter_library, "_loaded", _loaded),
    ):
        out = run(AITER, bucket, values, {("op", "scale"): 0.05}, data, real=REAL, target=facts)
    want = np.asarray(mla.attend(**data, scale=0.05))[:REAL]
    rms = float(np.sqrt(np.mean(want * want)))
    worst = float(np.abs(out["op.out"][:REAL] - want).max()) / rms
    return worst if np.isfinite(worst) else float("inf")


def main() -> None:
    """Print the error of the heads and the target that are given."""
    heads, target = int(sys.argv[1]), sys.argv[2]
    print(json.dumps({f"{heads} heads on {target}": case(heads, target)}))


if __name__ == "__main__":
    main()
