"""Whose kernels a planned step runs on, by share: layers counted, libraries told apart."""

from __future__ import annotations

from collections import Counter

import pytest
from tiny import PLAIN

from lostwax.backends.compile import CompileOptions, ModulePlan, plan_module
from lostwax.backends.gpu_kernels.lowerings.wide_products import WIDE_PRODUCTS
from lostwax.backends.plan.coverage import KINDS, StepCoverage, coverage, kind_of
from lostwax.backends.plan.sizes import Sizes
from lostwax.backends.portable.lowerings import lowerings as portable_lowerings
from lostwax.frontend.capture import capture
from lostwax.frontend.config import parse_config
from lostwax.ir.contract.program import HEADS


@pytest.fixture(scope="module")
def plan() -> ModulePlan:
    captured = capture(parse_config(PLAIN | {"num_hidden_layers": 5}))
    options = CompileOptions(dtype="f32", sizes=Sizes(max_context=256, max_tokens=16, max_reqs=2))
    return plan_module(captured.module, captured.facts, "cpu", options)


def steps_of(plan: ModulePlan) -> tuple[StepCoverage, ...]:
    portable = {low.name for low in portable_lowerings(plan.target)}
    return coverage(plan.contexts, plan.covers, portable)


def test_each_segment_has_its_largest_program_whose_shares_are_whole(plan: ModulePlan) -> None:
    steps = steps_of(plan)
    assert [step.segment for step in steps] == ["extend", "decode", *HEADS]
    assert "tokens=16" in steps[0].program
    for step in steps:
        assert sum(step.share(kind) for kind in KINDS) == pytest.approx(1.0)
        shares = [region.share for region in step.regions]
        assert shares == sorted(shares, reverse=True)


def test_a_share_counts_the_layers_that_call_a_block(plan: ModulePlan) -> None:
    step = steps_of(plan)[0]
    largest = next(i for i, context in enumerate(plan.contexts) if context.name == step.program)
    context, covers = plan.contexts[largest], plan.covers[largest]
    calls = Counter(call.callee.root_reference.data for call in context.calls)
    assert max(calls.values()) > 1, "or shares that forget layers would pass"
    us = {b: sum(p.price.micros for p in c.chosen) * calls[b] for b, c in covers.items()}
    assert step.us == pytest.approx(sum(us.values()))


def test_gaps_are_the_portable_regions_but_fills(plan: ModulePlan) -> None:
    for step in steps_of(plan):
        portable = {r for r in step.regions if r.kind == "portable"}
        assert {r for r in portable if r not in step.gaps} <= {
            r for r in portable if r.lowering == "portable_zeros_like"
        }
        assert all(gap.kind == "portable" for gap in step.gaps)


def test_a_librarys_products_are_told_from_own_kernels(plan: ModulePlan) -> None:
    portable = {low.name: low for low in portable_lowerings(plan.target)}
    own = next(iter(portable.values()))
    assert kind_of(own, portable) == "portable"
    assert kind_of(own, ()) == "own"
    assert {kind_of(low, portable) for low in WIDE_PRODUCTS} == {"library"}
