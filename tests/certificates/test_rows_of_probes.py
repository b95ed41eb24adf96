"""A probe of a region that rounds between its products compares the steady rows, and no others."""

from __future__ import annotations

import numpy as np
import pytest
from model_formats import FORMATS

from lostwax.backends.lowering import Lowering
from lostwax.backends.null.target import NULL
from lostwax.backends.plan.candidate import Candidate
from lostwax.backends.plan.cover import find_sites
from lostwax.backends.plan.program_context import ProgramContext
from lostwax.backends.proof.make_probes import make_probe
from lostwax.backends.proof.probe_inputs import probe_inputs
from lostwax.backends.proof.run_alone import launches_alone
from lostwax.backends.proof.steady_rows import steady_rows
from lostwax.backends.proof.step_cases import step_case
from lostwax.backends.runtime.draw import array_of
from lostwax.frontend.capture import capture
from lostwax.frontend.config import parse_config
from lostwax.ir.contract.kernel import CompiledKernel, KernelSource
from lostwax.ir.contract.program import Bucket, Guard
from lostwax.ir.passes.assign_formats import AssignFormatsPass
from lostwax.ir.passes.clean_up import CleanUpPass
from lostwax.ir.passes.pipeline import run
from lostwax.ir.passes.specialise import SpecialisePass
from lostwax.ir.reference.cache_bytes import CacheBytes
from lostwax.ir.reference.dtype import widen
from lostwax.ir.region import Node, Region

BUCKET = Bucket(64, 2, 4)
GATED = Region(
    {
        "gate": Node("quant.linear", {"x": "x", "weight": "w_gate"}),
        "up": Node("quant.linear", {"x": "x", "weight": "w_up"}),
        "act": Node("core.silu_mul", {"gate": "gate", "up": "up"}),
        "hidden": Node("quant.quantise", {"x": "act"}),
        "down": Node("quant.linear", {"x": "hidden", "weight": "w_down"}),
    },
    ("down",),
)


def no_kernel(source: KernelSource) -> CompiledKernel:
    """The lowering has no launches."""
    raise AssertionError(source)


@pytest.fixture(scope="module")
def gated() -> Candidate:
    """The gated MLP of a small model in the official formats."""
    config, formats = FORMATS["all_fp8"]
    module = run(capture(parse_config(config), 16).module, (AssignFormatsPass(**formats),), None)
    module = run(module, (SpecialisePass(segment="extend"), CleanUpPass()), None)
    context = ProgramContext(module, NULL, "extend", BUCKET, Guard("always"))
    lowering = Lowering(name="gated", pattern=GATED, emit=lambda match, knobs: ())
    block = context.blocks["dense"]
    ((_, match),) = find_sites(block, (lowering,))
    return Candidate(context, block, match, lowering)


@pytest.mark.parametrize("seed", [0, 1])
def test_rows_led_by_a_number_between_two_are_not_compared(gated: Candidate, seed: int) -> None:
    """Such rows are among those that are drawn; the values are the reference's of those left."""
    case = step_case(BUCKET, "extend", seed, page_tokens=64, vocab_size=64)
    alone, launches = launches_alone(gated, no_kernel)
    (expected,) = make_probe(alone, launches, case, "extend").expected
    inputs = probe_inputs(alone, launches, case)
    drawn = dict(inputs.values)
    inputs.sample.evaluate(inputs.values)
    ((out, is_steady),) = steady_rows(drawn, inputs.values, inputs.sample).items()
    sampled = np.array(inputs.rows.of(out.type))
    assert 0 < (~is_steady).sum() < sampled.size / 2
    assert list(expected.at) == sampled[is_steady].tolist()
    bound = inputs.values[out]
    assert not isinstance(bound, CacheBytes)
    found, want = array_of(expected.want), widen(bound)[is_steady]
    assert found.shape == (len(expected.at), len(expected.columns))
    assert np.allclose(found, want, rtol=1e-3, atol=1e-4)
