"""Runs the fp8 products of `plain_cases` in Triton's interpreter against the fp64 reference.

A program of its own because Triton decides at import whether it interprets. Arguments: maybe a
folder of kernels that stand in for those of the package; the target whose facts and encoding of fp8
they are launched for. Rows behind the real ones are NaN and must
be left alone. Output: one JSON object, case name to the error of its worst output as a share of
what is wanted (norms of all real rows), infinite where padding was written; a counter that is not
left zero ends it with an AssertionError.
"""

from __future__ import annotations

import argparse
import json
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
from attention_reference import attended, cached, from_residual, queries, rows_in
from fp8_faults import FILES
from padded_rows import differs, left, spoilt
from plain_case import Array, Case
from plain_cases import cases
from plain_run import Bind, rounded, run

from lostwax.backends.cuda.target import CUDA_SM90A
from lostwax.backends.gpu_kernels.interpreter import bind_interpreted
from lostwax.backends.registry import find_target
from lostwax.ir.contract.scale_layout import FP8_BLOCK, FP8_BLOCKS
from lostwax.ir.contract.target import Target
from lostwax.ir.reference import core, moe, quant
from lostwax.ir.reference.dtype import NUMPY_DTYPES, Real, Scaled, Value, widen


def stand_in(folder: Path) -> None:
    """Let the kernels in `folder` be those of the package."""
    for name in FILES:
        module_name = f"lostwax.backends.gpu_kernels.{name}"
        spec = spec_from_file_location(module_name, folder / f"{name}.py")
        assert spec
        assert spec.loader
        sys.modules[module_name] = module = module_from_spec(spec)
        spec.loader.exec_module(module)


def given(case: Case, name: str, rows: slice = slice(None)) -> Value:
    """A value as the kernels have it, with its scales."""
    kept = case.stored.get(name) or case.values[name]
    if kept.dtype == "i32":
        return case.data[name][rows]
    numbers = rounded(case.data[name][rows], kept.dtype)
    if kept.scale is None:
        return numbers
    scales = case.data[f"{name}:scale"][rows].astype(np.float32)
    values = numbers.astype(NUMPY_DTYPES[kept.dtype])
    return Scaled(values, scales, FP8_BLOCK if kept.scale == FP8_BLOCKS else 1, FP8_BLOCK)


def wanted(case: Case) -> dict[str, Real]:
    """The real rows of each output in fp64."""
    real = slice(0, case.real)
    if "q_nope" in case.values:
        return attended(case, lambda name: given(case, name))
    if "residual" in case.values:
        return from_residual(case, lambda name: given(case, name))
    x = given(case, "x", real)
    if "ids" in case.values:
        weights = (given(case, name) for name in ("gate", "up", "down"))
        chosen = case.data["ids"][real], case.data["weights"][real]
        node = "op" if "w_down" not in case.values else "routed"
        hidden = case.attributes.get((node, "hidden_fmt"))
        fmt = str(hidden) if hidden is not None and isinstance(x, Scaled) else None
        routed = moe.experts(x, *chosen, *weights, hidden_fmt=fmt)
        if "w_down" not in case.values:
            return {"op.out": routed}
        return {"out": routed + shared(case, x)}
    if "weight" in case.values:
        return {"op.out": quant.linear(x, given(case, "weight"))}
    if "act" in case.values:
        gate, up = np.split(quant.linear(x, given(case, "w_gate")), 2, axis=1)
        if "down" not in case.values:
            return {"act": core.silu_mul(gate, up)}
        return {"down": down(case, x, gate, up)}
    if "latents_in" in case.values:
        product = quant.linear(x, given(case, "w_q"))
        return cached(case, product, lambda name: np.asarray(given(case, name)))
    if "w_index" in case.values:
        return queries(case, quant.linear(x, given(case, "w_q_b")))
    q, k, kv = np.split(quant.linear(x, given(case, "w_q")), (128, 256), axis=1)
    norms = {name: np.asarray(given(case, name)) for name in ("q_weight", "k_weight", "k_bias")}
    return {
        "q_normed": core.rms_norm(q, norms["q_weight"], eps=1e-6),
        "k_normed": core.layer_norm(k, norms["k_weight"], norms["k_bias"], eps=1e-5),
        "kv": kv,
    }


def shared(case: Case, x: Value) -> Real:
    """What the shared expert adds."""
    gate, up = (quant.linear(x, given(case, name)) for name in ("w_gate", "w_up"))
    return down(case, x, np.asarray(gate), np.asarray(up))


def down(case: Case, x: Value, gate: Array, up: Array) -> Real:
    """The second product of a gated MLP, whose values are rounded where they say."""
    act = rounded(core.silu_mul(rounded(gate, "bf16"), rounded(up, "bf16")), "bf16")
    if isinstance(x, Scaled):
        act = quant.quantise(act, dtype=case.encoding, block=FP8_BLOCK, scale_fmt="ue8m0")
    return quant.linear(act, given(case, "w_down"))


def held(case: Case, name: str, found: dict[str, Array]) -> Array:
    """The real rows of an output, caches and scaled rows as the numbers that they stand for."""
    if case.values[name].parts:
        return rows_in(case, name, found[name])
    got = found[name][: case.real]
    if case.values[name].scale is None:
        return got
    return widen(Scaled(got, found[f"{name}:scale"][: case.real], 1, FP8_BLOCK))


def error(case: Case, twin: Bind = bind_interpreted, target: Target = CUDA_SM90A) -> float:
    """Of the worst output; infinite where a row behind the real ones was written."""
    found: dict[str, Array] = run(
        case.lowering, case.bucket, case.values, case.attributes, spoilt(case, case.real),
        case.knobs, real=case.real, stored=case.stored, twin=twin,
        target=target,
    )  # fmt: skip
    errors: list[float] = []
    for name, want in wanted(case).items():
        got = held(case, name, found)
        errors.append(float(np.linalg.norm(got - want) / np.linalg.norm(want)))
        if differs(found[name][case.real :], left(case, name)).any():
            errors.append(np.inf)
    return max(errors) if np.isfinite(errors).all() else np.inf


def main() -> None:
    """Print the errors."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folders", type=Path, nargs="*")
    parser.add_argument("--target", default=CUDA_SM90A.name)
    parser.add_argument("--cases", nargs="+", help="only those that begin so")
    options = parser.parse_args()
    for folder in options.folders:
        stand_in(folder)
    target = find_target(options.target)[1]
    begins = tuple(options.cases or ("fp8 ",))
    wanted_cases = {n: case for n, case in cases().items() if n.startswith(begins)}
    encoding = str(target.fp8_encoding)
    errors = {n: error(c.encoded(encoding), target=target) for n, c in wanted_cases.items()}
    print(json.dumps(errors))


if __name__ == "__main__":
    main()
