"""At V3.2's widths nothing is planned on a portable lowering, on Hopper and on AMD's GPUs."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest

from lostwax.backends.compile import CompileOptions, plan_module
from lostwax.backends.formats import Formats
from lostwax.backends.plan.coverage import StepCoverage, coverage
from lostwax.backends.plan.sizes import Sizes
from lostwax.backends.portable.lowerings import lowerings as portable_lowerings
from lostwax.frontend.capture import Captured, capture
from lostwax.frontend.config import parse_config

CONFIG = Path(__file__).parents[2] / "examples" / "deepseek-v3.2.json"
FIVE = {
    "num_hidden_layers": 5, "first_k_dense_replace": 1, "n_routed_experts": 32,
    "num_experts_per_tok": 8, "vocab_size": 16160, "num_nextn_predict_layers": 0,
}  # fmt: skip
"""A dense layer and four of experts, those of one rank of eight."""
FORMATS = {
    "official": Formats(kv="fp8_656", indexer="fp8_ue8m0", activations="fp8_ue8m0"),
    "fp8 activations": Formats(activations="fp8_ue8m0"),
    "bf16 activations": Formats(),
}
SIZES = Sizes(max_context=8192, max_tokens=4096, max_reqs=128)
OWN = {"cuda-sm90a": "sm90_fp8_linear"}
"""By target a lowering that shows that weights are fp8."""
CASES = [
    *(("cuda-sm90a", name) for name in FORMATS),
    *((target, "official") for target in ("rocm-gfx942", "rocm-gfx950")),
]


@cache
def captured() -> Captured:
    """The five layers; no weight is read."""
    return capture(parse_config(json.loads(CONFIG.read_text()) | FIVE))


def planned(target: str, formats: Formats) -> tuple[StepCoverage, ...]:
    """Every program as planned, whatever its size."""
    options = CompileOptions(formats=formats, sizes=SIZES)
    plan = plan_module(captured().module, captured().facts, target, options)
    portable = {low.name for low in portable_lowerings(plan.target)}
    each = zip(plan.contexts, plan.covers, strict=True)
    return tuple(step for c, found in each for step in coverage([c], [found], portable))


@pytest.mark.parametrize(("target", "formats"), CASES, ids=map(" ".join, CASES))
def test_nothing_is_planned_on_a_portable_lowering(target: str, formats: str) -> None:
    steps = planned(target, FORMATS[formats])
    used = {region.lowering for step in steps for region in step.regions}
    shows = OWN.get(target, "smxx_fp8_linear")
    assert any(name.startswith(shows.rpartition("_")[0]) for name in used), "weights are fp8"
    gaps = {(step.program, gap.ops, gap.lowering) for step in steps for gap in step.gaps}
    assert gaps == set()
