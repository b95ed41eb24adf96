"""What Ascend's lowerings say that they allocate is at least what torch's operators take there.

Measured on the CPU with torch's operators in the place of CANN's, which is what needs most: a
bound that is too low ends a step for want of memory, one that is too high keeps a lowering out.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from importlib import import_module
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from ascend_kit import BODIES, OWN, WEIGHTS, module_of
from ascend_operators import change, forget
from ascend_twin import TWIN_TARGET, TwinDriver
from held_bytes import most_held

from lostwax.backends.ascend.kernels import products
from lostwax.backends.ascend.kernels.composed import COMPOSED
from lostwax.backends.ascend.kernels.operators import operators_of
from lostwax.backends.ascend.twins.register import register
from lostwax.backends.lowering import Match
from lostwax.backends.plan.candidate import Candidate
from lostwax.backends.plan.step_launch import PREPARE
from lostwax.backends.portable.lowerings.calls import f32_bytes
from lostwax.backends.proof.check import check_case
from lostwax.backends.proof.kit import candidates, cases, contexts
from lostwax.backends.proof.run_alone import launches_alone, run_alone
from lostwax.backends.runtime.driver import Resolve, no_kernels
from lostwax.ir.contract.kernel import CompiledKernel, KernelSource
from lostwax.ir.contract.program import Bucket, HostCall, Launch

ROWS = Bucket(96, 3, 8, 3)
"""So many that scalars and small tables do not count."""
SMALL_BYTES = 256
LIBRARY_BYTES = 1 << 20
"""oneDNN's scratch for products in bf16 (`test_allocations.py`)."""
GATED = ("ascend_gate_up", "ascend_quant_gate_up")
"""They differ in how the product of both is made, which is one value in bf16 for either."""
PRODUCTS = ("ascend_linear", "ascend_gate_up")


class Metered(TwinDriver):
    """Notes the most that one of a lowering's own launches held beyond what it was given."""

    peak = 0

    def bind(self, launch: Launch, resolve: Resolve) -> Callable[[], None]:
        call = super().bind(launch, resolve)

        def watched() -> None:
            most = most_held(call)
            if launch.op != PREPARE:
                self.peak = max(self.peak, most)

        return watched


@pytest.fixture(autouse=True)
def without_cann(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    register()
    change(monkeypatch, dict.fromkeys(COMPOSED))
    yield
    forget()


def no_kernel(source: KernelSource) -> CompiledKernel:
    raise AssertionError(f"a lowering asked for a kernel: {source}")


def is_torch_alone(candidate: Candidate) -> bool:
    """Whether no twin runs: those take other memory than CANN."""
    called: set[str] = set()
    for launch in launches_alone(candidate, no_kernel)[1]:
        assert isinstance(launch, HostCall)
        module, _, name = launch.function.partition(":")
        called.update(operators_of(getattr(import_module(module), name)))
    return called <= COMPOSED.keys()


@pytest.mark.parametrize("weights", WEIGHTS)
def test_no_lowering_takes_more_memory_than_it_says(weights: str) -> None:
    module, facts = module_of(weights)
    measured: set[str] = set()
    for context in contexts(module, facts, TWIN_TARGET, BODIES[-1], (ROWS,)):
        for candidate in candidates(context, OWN):
            lowering = candidate.lowering
            assert lowering is not None
            if lowering.when.refusal(candidate) is not None or not is_torch_alone(candidate):
                continue
            driver = Metered(TWIN_TARGET, no_kernels, {})
            runner = run_alone(candidate, lambda driver=driver: driver, no_kernel)
            case = cases(context, facts, (1,))[0]
            check_case(runner, candidate.region, case, lowering.waiver)
            said = lowering.allocates(candidate, lowering.default_knobs())
            bound = said + SMALL_BYTES + (lowering.name in PRODUCTS) * LIBRARY_BYTES
            assert driver.peak <= bound, f"{lowering.name}: {driver.peak} > {bound}"
            measured.add(lowering.name)
    assert measured >= {"ascend_rope", "ascend_rms_norm", "ascend_route", "ascend_norm_rope_append"}


def one_output(rows: int, width: int) -> Match:
    """As much of a gated product's place as its bound looks at."""
    return cast("Match", SimpleNamespace(shape={"act": (rows, width)}.__getitem__))


@pytest.mark.parametrize("name", GATED)
def test_a_gate_is_widened_alone_and_in_place(name: str) -> None:
    """Else 4,096 rows of V3.2's dense layers need more than a region may take. So large that the
    products' scratch is none of what is measured."""
    (gated,) = (low for low in OWN if low.name == name)
    rows, width = 2048, 1024
    x, weight = torch.ones(rows, 64).bfloat16(), torch.ones(2 * width, 64).bfloat16()
    out = torch.empty(rows, width, dtype=torch.bfloat16)
    most = most_held(lambda: products.gate_up(x, weight, out))
    said = gated.allocates(one_output(rows, width), {})
    assert 3 * f32_bytes(rows, width) <= most <= said == 4 * f32_bytes(rows, width)
