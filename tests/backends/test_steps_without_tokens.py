"""Every lowering runs over a step in which no row has a token: drafts that all held up to the end
leave such a step to the MTP layer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from model_formats import FORMATS
from native_kernels import build_native, native_driver

from lostwax.backends.cpu.lowerings import lowerings
from lostwax.backends.cpu.target import CPU
from lostwax.backends.plan.candidate import Candidate
from lostwax.backends.proof.check import check_case
from lostwax.backends.proof.kit import VARIANTS, candidates, cases, contexts
from lostwax.backends.proof.run_alone import run_alone
from lostwax.backends.proof.step_cases import StepCase
from lostwax.frontend.capture import capture
from lostwax.frontend.config import parse_config
from lostwax.ir.contract.program import HEADS
from lostwax.ir.passes.assign_formats import AssignFormatsPass
from lostwax.ir.passes.pipeline import run


def without_tokens(case: StepCase) -> StepCase:
    """The step, whose requests keep their rows and none of their tokens."""
    none = {name: np.full_like(case.inputs[name], -1) for name in ("tokens", "positions")}
    none["slots"] = np.zeros_like(case.inputs["slots"])
    return replace(case, inputs={**case.inputs, **none, "num_rows": np.zeros(1, np.int32)})


@pytest.mark.parametrize(
    "formats",
    [
        pytest.param(name, marks=() if name in ("f32", "bf16") else pytest.mark.slow)
        for name in FORMATS
    ],
)
def test_no_lowering_needs_a_row_with_a_token(formats: str) -> None:
    config, chosen = FORMATS[formats]
    captured = capture(parse_config(config), page_tokens=8)
    module = run(captured.module, (AssignFormatsPass(**chosen),))
    seen: set[str] = set()
    for variant in (v for v in VARIANTS if v.segment not in HEADS):
        for context in contexts(module, captured.facts, CPU, variant):
            for candidate in candidates(context, lowerings(CPU)):
                assert candidate.lowering is not None
                if candidate.lowering.when.refusal(candidate) is None:
                    _run(candidate, without_tokens(cases(context, captured.facts, (0,))[0]))
                    seen.add(candidate.name)
    assert len(seen) > 20


def _run(candidate: Candidate, case: StepCase) -> None:
    runner = run_alone(candidate, native_driver, build_native)
    try:
        check_case(runner, candidate.region, case)
    except Exception as error:
        raise AssertionError(f"{candidate.name} on {candidate.context.name}: {error}") from error
