"""What kernels do with rows behind `num_rows`, in Triton's interpreter: nothing.

Every kernel runs over whole inputs, then over inputs whose rows behind the real ones hold NaN (and
other indices). It must give the real rows the same bits, and leave the others as they were. It also
runs with two wrong counts, all rows and one real row too few, which must show: else this sees
nothing. Output: one JSON object, case name to what was wrong by the count that was told, and how
many products of `linear_scaled` ran by the number of real rows.
"""

from __future__ import annotations

import json
import sys
from unittest.mock import patch

import numpy as np
import torch
from plain_case import Array, Case
from plain_cases import cases, linear
from plain_run import DTYPES, POISON, UNWRITTEN, run
from triton.runtime import interpreter

from lostwax.backends.proof.plain_match import WORKSPACE

NO_EXPERT = -1.0
"""What ids hold behind the real rows: the only thing that is written there."""


def spoilt(case: Case, real: int) -> dict[str, Array]:
    """NaN behind the real rows, and 0 for indices: what a kernel could well compute with."""
    found = dict(case.data)
    for name in case.of_rows:
        found[name] = found[name].copy()
        found[name][real:] = 0 if found[name].dtype == np.int32 else np.nan
    return found


def wrong(case: Case, real: int, told: int) -> str:
    """What is wrong where the step says that `told` rows are real, empty for nothing."""
    given = (case.lowering, case.bucket, case.values, case.attributes)
    whole = run(*given, case.data, case.knobs, stored=case.stored)
    found = run(*given, spoilt(case, real), case.knobs, real=told, stored=case.stored)
    for name in case.outputs:
        if not np.array_equal(whole[name][:real], found[name][:real]):
            return f"{name}: a real row differs"
        if not case.absorbs and differs(found[name][real:], left(case, name)).any():
            return f"{name}: a row behind the real ones was written"
    return wrong_in_workspace(case, real, found[WORKSPACE])


def differs(found: Array, left: float) -> Array:
    """Where it is not what was left; fp8 knows no POISON, and has NaN there."""
    return ~((found == left) | (np.isnan(found) & np.isnan(left)))


def left(case: Case, name: str) -> float:
    """What every place of an output holds behind the real rows."""
    kind = DTYPES[case.values[name].dtype]
    if kind.is_floating_point:
        return float(torch.tensor(POISON).to(kind))
    return float(torch.tensor(UNWRITTEN).to(kind)) if kind == torch.uint8 else NO_EXPERT


def wrong_in_workspace(case: Case, real: int, workspace: Array) -> str:
    """Partial results of rows behind the real ones, which would be NaN."""
    allowed = 0
    if case.absorbs:
        heads, latent = case.values["q_nope"].shape[1], case.values["kv_b"].shape[1]
        size = heads * case.rows * latent  # of the absorbed query, then of attended latents
        start = -(-size // 64) * 64
        latents = workspace[start : start + size].reshape(heads, case.rows, latent)
        if (latents[:, real:] != float(np.float32(POISON))).any():
            return "latents of a row behind the real ones were written"
        allowed = (case.rows - real) * heads * latent
    nan = int(np.isnan(workspace).sum())
    return "" if nan == allowed else f"{nan} numbers of the workspace are NaN, not {allowed}"


def num_products(real: int) -> int:
    """Blocks that `linear_scaled` multiplies for so many real rows: no result shows these."""
    builder = interpreter.InterpreterBuilder
    case = linear(2, scaled=False)
    multiply = builder.create_dot
    with patch.object(builder, "create_dot", autospec=True, side_effect=multiply) as products:
        run(case.lowering, case.bucket, case.values, {}, case.data, case.knobs, real=real)
    return products.call_count


def main() -> None:
    """Run cases with the right count, with none real, and with two wrong counts: those that are
    named in the arguments, or all."""
    found: dict[str, dict[str, str]] = {}
    every = cases()
    for name in sys.argv[1:] or every:
        case = every[name]
        told = {"right": case.real, "all": case.rows, "one too few": case.real - 1}
        found[name] = {how: wrong(case, case.real, count) for how, count in told.items()}
        found[name]["none"] = wrong(case, 0, 0)
    products = {real: num_products(real) for real in (0, 1, 16, 17, 32, 33)}
    print(json.dumps({"wrong": found, "products": products}))


if __name__ == "__main__":
    main()
