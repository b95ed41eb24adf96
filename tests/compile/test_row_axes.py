"""Which values a lowering may cut at `num_rows`, and which step inputs its launches may read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from native_kernels import build_native
from xdsl.dialects import builtin

from lostwax.backends.cpu.lowerings import lowerings
from lostwax.backends.cpu.target import CPU
from lostwax.backends.plan.candidate import Candidate
from lostwax.backends.plan.program_context import ProgramContext
from lostwax.backends.plan.state_rows import StateRows
from lostwax.backends.predicates import of_rows
from lostwax.backends.proof.kit import candidates
from lostwax.backends.proof.run_alone import Alone, launches_alone
from lostwax.frontend.capture import Captured
from lostwax.ir.contract.program import Bucket, Guard, Segment
from lostwax.ir.passes.assign_formats import AssignFormatsPass
from lostwax.ir.passes.clean_up import CleanUpPass
from lostwax.ir.passes.pipeline import run
from lostwax.ir.passes.specialise import SpecialisePass

BUCKETS = {
    "extend": Bucket(7, 2, 3), "decode": Bucket(6, 2, 3), "pick": Bucket(rows=5)
}  # fmt: skip
"""Decode steps here verify two drafts: three rows a request."""


def _context(captured: Captured, segment: Segment) -> ProgramContext:
    rows = 3 if segment == "decode" else 1
    passes = (
        AssignFormatsPass(dtype="f32"),
        SpecialisePass(segment=segment, rows=rows),
        CleanUpPass(),
    )
    module: builtin.ModuleOp = run(captured.module.clone(), passes)
    states = replace(StateRows.least(BUCKETS[segment]), hidden=7)
    return ProgramContext(module, CPU, segment, BUCKETS[segment], Guard("chosen"), states)


def _found(captured: Captured, segment: Segment, op: str) -> Iterator[Candidate]:
    for candidate in candidates(_context(captured, segment), lowerings(CPU)):
        if [each.name for each in candidate.region.ops.values()] == [op]:
            yield candidate


@pytest.mark.parametrize("segment", ["extend", "decode", "pick"])
def test_products_of_the_step_s_rows_may_leave_behind_the_real_ones(
    small_capture: Captured, segment: Segment
) -> None:
    found = list(_found(small_capture, segment, "quant.linear"))
    assert found
    for candidate in found:
        assert candidate.is_rows("x")
        assert candidate.shape("x")[0] == BUCKETS[segment].most_rows
        assert not candidate.is_rows("weight")
        assert of_rows("x").refusal(candidate) is None


def test_the_state_s_rows_are_not_those_that_a_head_counts(small_capture: Captured) -> None:
    candidate = next(_found(small_capture, "pick", "core.gather_rows"))
    assert candidate.is_rows("rows")
    assert candidate.is_rows("op.out")
    assert of_rows("x").refusal(candidate) == (
        "axis 0 of x is not the step's rows, which num_rows counts"
    )


def test_requests_are_no_rows_where_each_has_several(small_capture: Captured) -> None:
    candidate = next(_found(small_capture, "decode", "mla.attend"))
    assert candidate.is_rows("q_nope")
    assert not candidate.is_rows("page_table")


def test_a_launch_reads_only_what_its_segment_is_given(small_capture: Captured) -> None:
    candidate = next(_found(small_capture, "pick", "quant.linear"))
    alone, _ = launches_alone(candidate, build_native)
    assert isinstance(alone, Alone)
    placed = Candidate(
        candidate.context, candidate.block, candidate.region, candidate.lowering, alone
    )
    view = placed.step_input("num_rows")
    assert (view.space, view.name, view.dtype, view.shape) == (
        "input",
        "step.num_rows",
        "i32",
        (1,),
    )
    with pytest.raises(KeyError, match="asks for 'positions', which no pick program reads"):
        placed.step_input("positions")
