"""Every op's fp64 reference beside onnxruntime's run of its ONNX body: two meanings, one answer."""

from __future__ import annotations

from importlib import import_module

import pytest
from onnx_places import PLACES, Variant, cases, certified, places

from lostwax.backends.proof.step_cases import StepCase
from lostwax.ir.dialects import DIALECTS
from lostwax.ir.region import RegionMatch

EXACT = {"quant.quantise", "kv.append", "core.concat", "core.reshape", "core.slice"}
ROUNDED = {"f32": 1e-6, "bf16": 2**-7}
"""What f64 bodies may be off by: f32 attributes such as scale, or a step of bf16, into which
onnxruntime rounds f64 by way of f32."""


def check(match: RegionMatch, steps: tuple[StepCase, ...]) -> None:
    """In f32 within the kit's tolerance, in f64 up to the result's rounding."""
    op = match.ops["op"]
    certified(match, steps)
    exact = certified(match, steps, "f64")
    coarse = any("bf16" in str(r.type) for r in op.results)
    allowed = 0.0 if op.name in EXACT else ROUNDED["bf16" if coarse else "f32"]
    assert exact.max_error is not None
    assert exact.max_error <= allowed, (op.name, exact)
    assert exact.set_agreement in (None, 1.0), (op.name, exact)


@pytest.mark.parametrize(("name", "variant"), PLACES, ids=lambda v: str(v).replace("'", ""))
def test_every_body_gives_what_its_op_means(name: str, variant: Variant) -> None:
    for match in places(name, variant):
        check(match, cases(name, variant))


def test_every_op_but_the_call_is_decomposed_and_tested() -> None:
    every: set[str] = set()
    for dialect in set(DIALECTS) - {"step", "dist"}:
        module = import_module(f"lostwax.ir.dialects.{dialect}")
        every |= {op.name for op in getattr(module, dialect.upper()).operations}
    tested = {m.ops["op"].name for place in PLACES for m in places(*place)}
    assert tested == every - {"core.call"}
