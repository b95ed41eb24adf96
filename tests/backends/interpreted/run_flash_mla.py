"""Runs the lowerings that call FlashMLA with a stand-in for it, kernels in Triton's interpreter.

Output: one JSON object, case name to the largest error relative to the reference's RMS.
"""

from __future__ import annotations

import json
import sys

import flash_mla_stand_in
import numpy as np
from latent_rows import LATENT, ROPE, encode
from plain_run import rounded, run

from lostwax.backends.cuda.kernels import flash_mla
from lostwax.backends.cuda.lowerings.flash_mla import FLASH_MLA
from lostwax.backends.proof.plain_match import Value
from lostwax.ir.contract.program import Bucket
from lostwax.ir.reference import mla

PAGE, KEYS, PAGES = 64, 128, 3
POSITIONS = np.array([70, 71, 3, 150, 0], np.int32)
STARTS = np.array([0, 2, 3, 4, 4], np.int32)
"""Requests of two rows and of one each; the last has none, and neither has the last row."""
REAL = 4
FAR = 1 << 28
"""What stands in the selection of a row without a token."""


def case(name: str, heads: int, empty: bool = False) -> float:
    """One lowering; pages that no request has are NaN, the trash page, too."""
    lowering = {each.name: each for each in FLASH_MLA}[name]
    layout = "fp8_656" if name == "flashmla_kv" else "bf16"
    rng = np.random.default_rng(heads)
    reqs, rows, nope, value = len(STARTS) - 1, len(POSITIONS), 32, 16
    table = (1 + rng.permutation(reqs * PAGES)).reshape(reqs, PAGES).astype(np.int32)
    slots = (1 + reqs * PAGES) * PAGE
    stored, wide = encode(
        layout, rng.standard_normal((slots, LATENT)), rng.standard_normal((slots, ROPE))
    )
    stored[:PAGE], wide[:PAGE] = 0xFF, np.nan
    selection = np.full((rows, KEYS), -1, np.int32)
    for row in range(REAL):
        count = min(int(POSITIONS[row]) + 1, KEYS)
        selection[row, :count] = np.sort(rng.permutation(POSITIONS[row] + 1)[:count])
    if empty:
        selection[1] = -1
    selection[REAL:] = FAR
    q = rounded(rng.standard_normal((rows, heads, nope + ROPE)), "bf16")
    kv_b = rounded(rng.standard_normal((heads * (nope + value), LATENT)) / LATENT**0.5, "bf16")
    held = Value((slots // PAGE, PAGE, stored.shape[1]), "u8", parts=(LATENT, ROPE), layout=layout)
    cache = stored.reshape(slots // PAGE, PAGE, -1)
    if layout == "bf16":
        held = Value((slots // PAGE, PAGE, LATENT + ROPE), "bf16", parts=(LATENT, ROPE))
        cache = wide.reshape(slots // PAGE, PAGE, -1)
    strides = (heads * (nope + ROPE), nope + ROPE, 1)
    values = {
        "q_nope": Value((rows, heads, nope), "bf16", strides),
        "q_pe": Value((rows, heads, ROPE), "bf16", strides),
        "kv_b": Value(kv_b.shape, "bf16"),
        "cache_in": held,
        "selection": Value(selection.shape, "i32"),
        "positions": Value((rows,), "i32"),
        "q_starts": Value((reqs + 1,), "i32"),
        "page_table": Value(table.shape, "i32"),
        "op.out": Value((rows, heads * value), "bf16"),
    }
    data = {
        "q_nope": q[..., :nope], "q_pe": q[..., nope:], "kv_b": kv_b, "cache_in": cache,
        "selection": selection, "positions": POSITIONS, "q_starts": STARTS, "page_table": table,
    }  # fmt: skip
    bucket = Bucket(rows, reqs, PAGES, 0)
    out = run(lowering, bucket, values, {("op", "scale"): 0.05}, data, real=REAL)
    given = data | {"cache_in": wide.reshape(slots // PAGE, PAGE, -1)}
    want = np.asarray(mla.attend(**given, scale=0.05))[:REAL]
    rms = float(np.sqrt(np.mean(want * want)))
    worst = float(np.abs(out["op.out"][:REAL] - want).max()) / rms
    return worst if np.isfinite(worst) else float("inf")


def _version(package: str) -> str:
    assert package == flash_mla.PACKAGE
    return "1.0.0"


def main() -> None:
    """Every case."""
    sys.modules[flash_mla.MODULE] = flash_mla_stand_in
    flash_mla.installed_version = _version
    found = {
        f"{name} {heads} heads{' empty' * empty}": case(name, heads, empty)
        for name in ("flashmla_kv", "flashmla_sparse")
        for heads, empty in ((4, False), (4, True), (64, False), (70, False))
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
