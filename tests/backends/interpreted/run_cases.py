"""Runs the Triton kernels in Triton's interpreter as the lowerings launch them; prints errors.

A program of its own because Triton decides at import whether it interprets. Output: one JSON
object, case name to the largest error relative to the reference's RMS.
"""

from __future__ import annotations

import json
from typing import Any
from unittest.mock import patch

import numpy as np
from plain_case import Case
from plain_cases import index_logits
from plain_expert_cases import expert_cases
from plain_run import rounded, run
from triton.runtime.interpreter import InterpreterBuilder

from lostwax.backends.gpu_kernels.lowerings.add import ADD
from lostwax.backends.gpu_kernels.lowerings.attend import ATTEND, ATTEND_ALL
from lostwax.backends.gpu_kernels.lowerings.norms import ADD_RMS_NORM, LAST_RMS_NORM, RMS_NORM
from lostwax.backends.gpu_kernels.lowerings.rope import ROPE
from lostwax.backends.gpu_kernels.lowerings.rows import EMBED, GATHER_ROWS
from lostwax.backends.lowering import Lowering
from lostwax.backends.proof.plain_match import Value
from lostwax.backends.proof.step_cases import step_case
from lostwax.ir.contract.program import Bucket
from lostwax.ir.reference import core, dsa, mla, moe


def error(got: np.ndarray, want: np.ndarray) -> float:
    """Largest difference relative to the RMS of what is wanted; NaN counts as infinite."""
    rms = float(np.sqrt(np.mean(want * want))) or 1.0
    worst = float(np.max(np.abs(got - want))) / rms
    return worst if np.isfinite(worst) else float("inf")


def norm_case(lowering: Lowering, rows: int, width: int, dtype: str) -> float:
    """Fused or single norm; rows are slices of wider ones."""
    rng = np.random.default_rng(width)
    strided = Value((rows, width), dtype, (width + 3, 1))
    dense = Value((rows, width), dtype)
    weight = Value((width,), dtype)
    x, y = (rounded(rng.standard_normal((rows, width)), dtype) for _ in range(2))
    w = rounded(1 + 0.1 * rng.standard_normal(width), dtype)
    bucket = Bucket(rows, rows, 1, rows)
    if lowering is RMS_NORM:
        values = {"x": strided, "weight": weight, "op.out": dense}
        out = run(lowering, bucket, values, {("op", "eps"): 1e-6}, {"x": x, "weight": w})
        return error(out["op.out"], np.asarray(core.rms_norm(x, w, eps=1e-6)))
    values = {"residual": strided, "delta": dense, "sum": Value((rows, width), "f32")}
    values |= {"weight": weight, "normed": dense, "residual_out": dense}
    data = {"residual": x, "delta": y, "weight": w}
    out = run(lowering, bucket, values, {("normed", "eps"): 1e-6}, data)
    worst = error(out["normed"], np.asarray(core.rms_norm(x + y, w, eps=1e-6)))
    if lowering is ADD_RMS_NORM:
        worst = max(worst, error(out["residual_out"], x + y))
    return worst


def attend_case(
    heads: int, nope: int, rope: int, latent: int, value: int, top: int, bucket: Bucket,
    dtypes: tuple[str, str], seed: int, dense: bool = False, **knobs: int,
) -> float:  # fmt: skip
    """Sparse or dense attention over a paged cache with unequal requests and padding."""
    page = 16
    entry = "decode" if bucket.tokens == bucket.reqs else "extend"
    case = step_case(bucket, entry, seed, page_tokens=page, vocab_size=8)
    rng = np.random.default_rng(seed)
    act, stored = dtypes
    rows = bucket.tokens
    q = rounded(rng.standard_normal((rows, heads, nope + rope)), act)
    kv_b = rounded(rng.standard_normal((heads * (nope + value), latent)) / latent**0.5, act)
    cache = rounded(rng.standard_normal((case.env["N"], page, latent + rope)), stored)
    positions = case.inputs["positions"].astype(np.int32)
    selection = np.full((rows, top), -1, np.int32)
    for row, position in enumerate(positions):
        count = min(int(position) + 1, top)
        chosen = np.arange(count) if dense else np.sort(rng.permutation(position + 1)[:count])
        selection[row, :count] = chosen
    wide = (heads * (nope + rope), nope + rope, 1)
    values = {
        "q_nope": Value((rows, heads, nope), act, wide),
        "q_pe": Value((rows, heads, rope), act, wide),
        "kv_b": Value(kv_b.shape, act),
        "cache_in": Value(cache.shape, stored, parts=(latent, rope)),
        "selection": Value(selection.shape, "i32"),
        "positions": Value((rows,), "i32"),
        "q_starts": Value((bucket.reqs + 1,), "i32"),
        "page_table": Value((bucket.reqs, bucket.pages), "i32"),
        "op.out": Value((rows, heads * value), act),
    }
    tables = {n: case.inputs[n].astype(np.int32) for n in ("q_starts", "page_table")}
    data = {"q_nope": q[..., :nope], "q_pe": q[..., nope:], "kv_b": kv_b, "cache_in": cache}
    data |= {"selection": selection, "positions": positions, **tables}
    lowering = ATTEND_ALL if dense else ATTEND
    out = run(lowering, bucket, values, {("op", "scale"): 0.2}, data, knobs)
    want = mla.attend(**{n: data[n] for n in values if n != "op.out"}, scale=0.2)
    return error(out["op.out"], np.asarray(want))


def rope_case(interleaved: bool, factor: float) -> float:
    """Rows far apart, turned by a table that a kernel makes."""
    positions = np.array([0, 1, 4095, 131_071, 163_839], np.int32)
    rows, heads, width = len(positions), 2, 24
    about: dict[str, Any] = {"offset": 4, "dim": 20, "interleaved": interleaved, "factor": factor}
    about |= {"theta": 10_000.0, "original_len": 4096, "beta_fast": 32.0, "beta_slow": 1.0}
    about |= {"magnitude": 1.25}
    x = rounded(np.random.default_rng(0).standard_normal((rows, heads, width)), "f32")
    values = {"x": Value(x.shape, "f32"), "positions": Value((rows,), "i32")}
    values |= {"table": Value((2, rows, 20), "f32"), "op.out": Value(x.shape, "f32")}
    attributes = {("op", name): value for name, value in about.items()}
    data = {"x": x, "positions": positions}
    bucket = Bucket(rows, rows, 1, rows)
    out = run(ROPE, bucket, values, attributes, data, prepares=True)
    return error(out["op.out"], np.asarray(core.rope(x, positions, **about)))


def rows_case(lowering: Lowering, table: str, rows: str) -> float:
    """Rows of a wide table, and one of none."""
    stored = rounded(np.random.default_rng(1).standard_normal((9, 2050)), "bf16")
    wanted = np.array([8, -1, 0], np.int32)
    values = {table: Value((9, 2050), "bf16", (2056, 1)), rows: Value((3,), "i32")}
    values["op.out"] = Value((3, 2050), "bf16")
    out = run(lowering, Bucket(3, 3, 1, 3), values, {}, {table: stored, rows: wanted})
    want = np.where(wanted[:, None] < 0, 0.0, stored[wanted])
    return float(np.abs(out["op.out"] - want).max())


def add_case() -> float:
    """A strided sum of two dtypes."""
    a, b = np.random.default_rng(2).standard_normal((2, 3, 1030))
    a, b = rounded(a, "f32"), rounded(b, "bf16")
    values = {"a": Value((3, 1030), "f32", (1032, 1)), "b": Value((3, 1030), "bf16")}
    values["op.out"] = Value((3, 1030), "f32")
    out = run(ADD, Bucket(3, 3, 1, 3), values, {}, {"a": a, "b": b})
    return error(out["op.out"], a + b)


def route_case(case: Case) -> float:
    """The choice of rows and their weights; of the ids, whether each is the reference's."""
    found = run(
        case.lowering, case.bucket, case.values, case.attributes, case.data, real=case.real
    )  # fmt: skip
    real = slice(0, case.real)
    x, weight, bias = (rounded(case.data[n], case.values[n].dtype) for n in ("x", "weight", "bias"))
    about: dict[str, Any] = {name: value for (_, name), value in case.attributes.items()}
    positions = case.data["positions"][real]
    ids, weights = moe.route(x[real] @ weight.T, bias, positions, **about)
    if not np.array_equal(found["routed.ids"][real], ids):
        return float("inf")
    return error(found["routed.weights"][real], weights)


def unordered_logits_case() -> float:
    """A row of NaN and one with some: both choose experts that there are, each once, of the second
    none whose logit is NaN; weights of the first are NaN. Other rows are the reference's."""
    case = expert_cases()["route"]
    case.data["logits"][0] = np.nan
    case.data["logits"][1, 1::2] = np.nan
    found = run(
        case.lowering, case.bucket, case.values, case.attributes, case.data, real=case.real
    )  # fmt: skip
    ids, weights = found["op.ids"][: case.real], found["op.weights"][: case.real]
    about: dict[str, Any] = {name: value for (_, name), value in case.attributes.items()}
    logits, bias, positions = (case.data[name] for name in ("logits", "bias", "positions"))
    others = slice(2, case.real)
    want_ids, want = moe.route(logits[others], bias, positions[others], **about)
    there = ((ids >= 0) & (ids < 8)).all() and all(len({*row}) == 2 for row in ids.tolist())
    right = (ids[1] % 2 == 0).all() and np.isnan(weights[0]).all() and (ids[2:] == want_ids).all()
    return error(weights[2:], want) if there and right else float("inf")


def unordered_key_case() -> float:
    """A key of NaN that one row sees: its logit is NaN there, and no other is.

    A maximum that need not keep NaN gives the number beside it, as on devices; the interpreter's
    own would keep it.
    """
    case = index_logits()
    data = dict(case.data)
    data["cache_in"] = rounded(data["cache_in"], "f32")
    data["cache_in"][data["page_table"][1, 0], 4, 7] = np.nan
    with patch.object(InterpreterBuilder, "create_maxnumf", _number_of_two):
        out = run(case.lowering, case.bucket, case.values, case.attributes, data)["op.out"]
    names = ("q", "weights", "cache_in", "positions", "q_starts", "page_table")
    scale: Any = case.attributes["op", "scale"]
    want = np.asarray(dsa.index_logits(**{n: data[n] for n in names}, scale=scale))
    assert np.isnan(want).sum() == 1
    is_number = np.isfinite(want)
    if not np.array_equal(np.isnan(out), np.isnan(want)) or (out[want == -np.inf] != -np.inf).any():
        return float("inf")
    return error(out[is_number], want[is_number])


def _number_of_two(builder: Any, a: Any, b: Any) -> Any:
    return builder.binary_op(a, b, np.fmax)


def zeroed_step_case() -> float:
    """Capture runs over zeroed inputs: rows behind every request must read inside the table."""
    rng = np.random.default_rng(0)
    q, kv_b = rng.standard_normal((3, 2, 12)), rng.standard_normal((2 * 16, 24))
    cache = rng.standard_normal((2, 16, 28))
    selection = np.tile(np.array([0, -1], np.int32), (3, 1))
    zeros = {"positions": np.zeros(3, np.int32), "page_table": np.zeros((3, 1), np.int32)}
    data = {"q_nope": q[..., :8], "q_pe": q[..., 8:], "kv_b": kv_b, "cache_in": cache}
    data |= {"selection": selection, "q_starts": np.zeros(4, np.int32), **zeros}
    values = {n: Value(a.shape, "f32" if a.dtype == float else "i32") for n, a in data.items()}
    values["cache_in"] = Value(cache.shape, "f32", parts=(24, 4))
    values["op.out"] = Value((3, 16), "f32")
    out = run(ATTEND, decode(3, 1), values, {("op", "scale"): 0.2}, data)
    real = data | {"q_starts": np.arange(4, dtype=np.int32)}
    return error(out["op.out"], np.asarray(mla.attend(**real, scale=0.2)))


def decode(reqs: int, pages: int) -> Bucket:
    """One row a request."""
    return Bucket(reqs, reqs, pages, reqs)


def main() -> None:
    """Run every case and print the errors."""
    wide, narrow = ("f32", "f32"), ("bf16", "bf16")
    errors = {
        "add_rms_norm f32": norm_case(ADD_RMS_NORM, 3, 100, "f32"),
        "add_rms_norm bf16": norm_case(ADD_RMS_NORM, 2, 257, "bf16"),
        "last_rms_norm f32": norm_case(LAST_RMS_NORM, 3, 64, "f32"),
        "rms_norm f32": norm_case(RMS_NORM, 1, 7, "f32"),
        "rms_norm bf16": norm_case(RMS_NORM, 5, 512, "bf16"),
        "rope f32": rope_case(interleaved=True, factor=40.0),
        "rope in halves f32": rope_case(interleaved=False, factor=40.0),
        "rope without a factor f32": rope_case(interleaved=True, factor=1.0),
        "embed f32": rows_case(EMBED, "table", "tokens"),
        "gather_rows f32": rows_case(GATHER_ROWS, "x", "rows"),
        "add f32": add_case(),
        **{
            f"{name} f32": route_case(case)
            for name, case in expert_cases().items()
            if name.startswith("route rows")
        },
        "attend odd ranks f32": attend_case(3, 24, 10, 72, 20, 7, decode(5, 3), wide, 1),
        "attend one request f32": attend_case(1, 8, 8, 16, 8, 40, decode(1, 4), wide, 0),
        "attend many heads f32": attend_case(20, 8, 6, 24, 8, 9, decode(3, 2), wide, 3),
        "attend extend f32": attend_case(2, 8, 4, 24, 12, 11, Bucket(13, 3, 3, 3), wide, 5),
        "attend splits f32": attend_case(
            2, 8, 4, 24, 12, 60, decode(3, 5), wide, 2, splits=3, block_keys=16
        ),
        "attend one split f32": attend_case(
            2, 8, 4, 24, 12, 60, decode(3, 5), wide, 2, splits=1, block_keys=16
        ),
        "route of NaN f32": unordered_logits_case(),
        "index_logits of a key of NaN f32": unordered_key_case(),
        "attend over a zeroed step f32": zeroed_step_case(),
        "attend bf16": attend_case(4, 32, 16, 64, 32, 32, decode(4, 4), narrow, 1),
        "attend f32 over bf16 cache": attend_case(
            4, 32, 16, 64, 32, 32, decode(4, 4), ("f32", "bf16"), 1
        ),
        "attend all f32": attend_case(3, 24, 10, 72, 20, 48, decode(5, 3), wide, 1, dense=True),
        "attend all capped f32": attend_case(
            2, 8, 4, 24, 12, 20, decode(2, 1), wide, 4, dense=True
        ),
    }
    print(json.dumps(errors))


if __name__ == "__main__":
    main()
