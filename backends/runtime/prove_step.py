"""Runs the step's kernels of an artifact at its first boot, beside what numpy makes of the steps.

No probe of the artifact is asked: steps are drawn here, and `StepRows` is what they must agree
with, to the bit. Knows no layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np
from msgspec import structs

from lostwax.backends.runtime.allocation import allocated
from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.backends.runtime.count_state import CountState
from lostwax.backends.runtime.derive import StepInputs
from lostwax.backends.runtime.driver import Driver
from lostwax.backends.runtime.input_layout import input_bytes, input_offsets
from lostwax.backends.runtime.memory import Buffer, DeviceMemory, Place
from lostwax.backends.runtime.pack_plan import pack_plan
from lostwax.backends.runtime.random_step import random_step
from lostwax.backends.runtime.run_probe import WrongKernel
from lostwax.backends.runtime.state_table import StateTable
from lostwax.backends.runtime.step_buffers import InputMemory, StepBuffers
from lostwax.backends.runtime.step_rows import StepRows
from lostwax.ir.contract.artifact import Limits
from lostwax.ir.contract.check_program import code_of, step_states
from lostwax.ir.contract.check_views import end_of
from lostwax.ir.contract.counts import COUNTS, OUTPUT, counts_bytes, counts_shape
from lostwax.ir.contract.probe import Evidence
from lostwax.ir.contract.program import HEADS, Launch, Program, View, views_of
from lostwax.ir.contract.step import input_shape, inputs_of
from lostwax.ir.contract.step_layout import (
    BOXES,
    PLACES,
    RESULT_BOX,
    RESULT_WIDTHS,
    SENT_BOX,
    SEQUENCES,
    STEP_OP,
    StepLayout,
)
from lostwax.ir.contract.step_plan import StepPlan
from lostwax.ir.contract.step_state import STEP_STATE

LEAST_STEPS = 64
"""Steps that are run at least, and one over every program."""
IDS = (3, 4)
"""What heads pick: few ids, so that drafts are often accepted."""


def prove_step(reader: ArtifactReader, driver: Driver) -> Evidence:
    """Run each kernel of the step over drawn steps. Raises WrongKernel where one is wrong."""
    proof = _Proof(reader, driver)
    rng = np.random.default_rng(0)
    for body, head, draft in proof.rounds():
        plan = random_step(rng, body, draft, reader.manifest.limits, IDS)
        proof.play(rng, plan, body, head, draft)
    what = f"the step around the layers ({len(proof.ran)} kernels)"
    return Evidence(what=what, state="executed", ran=tuple(sorted(proof.ran)))


def _launches(program: Program) -> tuple[list[Launch], list[Launch]]:
    """Those of the step before and behind the program's own."""
    before = [launch for launch in program.prepare if launch.op.startswith(STEP_OP)]
    return before, [launch for launch in program.finish if launch.op.startswith(STEP_OP)]


class _Bound:
    """The step's launches of one program, over buffers that it shares with all others."""

    def __init__(self, program: Program, inputs: Buffer, arena: Buffer, proof: _Proof) -> None:
        self.program = program
        self._offsets, size = input_offsets(program.segment, program.bucket)
        self._inputs, self._arena, self._driver = inputs[:size], arena, proof.driver

        self._memory = proof.driver.memory
        place = self._memory.place

        def resolve(view: View) -> Place:
            if view.space == "arena":
                return place(self._arena, view)
            if view.space == "input":
                return place(self._inputs, view, self._offsets[view.name])
            return place(proof.states[view.name], view)

        before, behind = _launches(program)
        self._before = [proof.driver.bind(launch, resolve) for launch in before]
        self._behind = [proof.driver.bind(launch, resolve) for launch in behind]

    def derive(self, want: StepInputs, rows: slice = slice(None)) -> None:
        """Make the inputs, which must be those that the host would have filled in."""
        for launch in self._before:
            launch()
        self._driver.synchronize()
        segment, bucket = self.program.segment, self.program.bucket
        memory = InputMemory(self._driver.allocate(self._inputs.nbytes), self._driver)
        StepBuffers(segment, bucket, memory).fill(want, rows)
        found, wanted = self._memory.read(self._inputs), memory.array
        for name in inputs_of(segment):
            start = self._offsets[name]
            at = slice(start, start + 4 * prod(input_shape(name, bucket)))
            require_equal(f"the input {name!r}", found[at], wanted[at], self.program)

    def give(self, results: dict[str, Any]) -> None:
        """Let the head have given `results`, i32 [rows or fewer, ...] by name."""
        for name, values in results.items():
            view = self.program.outputs[name]
            self._put_rows(view, values)
        for launch in self._behind:
            launch()

    def _put_rows(self, view: View, values: Any) -> None:
        """Rows of 4-byte numbers, which need not lie one behind another."""
        rows = values.reshape(len(values), -1)
        apart, *within = view.strides
        columns = np.arange(rows.shape[1], dtype=np.int64)
        columns *= within[0] if within else 1
        places = np.arange(len(rows), dtype=np.int64) * apart + view.offset // 4
        at = np.add.outer(places, columns).reshape(-1)
        self._memory.set_words(self._arena, at, rows.reshape(-1))


class _Proof:
    """Memory of steps, and all programs of an artifact."""

    def __init__(self, reader: ArtifactReader, driver: Driver) -> None:
        manifest = reader.manifest
        self.driver = driver
        self._limits = manifest.limits
        self._layout = StepLayout.of(manifest.limits)
        self.states = {
            name: allocated(driver, size, "a drawn step's state", host=name in BOXES)
            for name, size in step_states(manifest).items()
        }
        size = counts_bytes(manifest.limits)
        self.states[COUNTS] = allocated(driver, size, "a drawn step's counts")
        self._counts = CountState(self.states[COUNTS], manifest.limits.vocab_size, driver)
        self._turn = 0
        programs = [reader.program(ref.file) for ref in manifest.programs]
        launches = [launch for p in programs for half in _launches(p) for launch in half]
        self.ran = {code_of(launch) for launch in launches}
        views = (view for launch in launches for view in views_of(launch))
        size = max((end_of(view) for view in views if view.space == "arena"), default=0)
        self._arena = allocated(driver, size, "a drawn step's arena")
        self._inputs = allocated(driver, max(input_bytes(manifest.programs)), "its inputs")
        self._bodies = [p for p in programs if p.segment in ("extend", "decode")]
        self._drafts = [p for p in programs if p.segment == "draft"]
        self._heads = [p for p in programs if p.segment in HEADS]

    def rounds(self) -> Iterator[tuple[Program, Program, Program | None]]:
        """A body, a head and a draft body for each step; every program has one at least. Behind
        that a body meets the next head each time, whatever their numbers have in common."""
        bodies, heads, drafts = self._bodies, self._heads, self._drafts
        if not bodies or not heads:
            return
        most = max(len(bodies), len(heads), len(drafts))
        for number in range(max(LEAST_STEPS, most)):
            other = number + number // most
            draft = drafts[other % len(drafts)] if drafts else None
            yield bodies[number % len(bodies)], heads[other % len(heads)], draft

    def _bound(self, program: Program) -> _Bound:
        return _Bound(program, self._inputs, self._arena, self)

    def play(
        self,
        rng: np.random.Generator,
        plan: StepPlan,
        body: Program,
        head: Program,
        draft: Program | None,
    ) -> None:
        """Run the step's kernels in order; what they leave must be what numpy leaves."""
        plan = structs.replace(plan, head=head.segment)  # who counts what is picked
        top = self._bound(head)
        limits, number = self._limits, self._turn % PLACES
        table = StateTable(limits.max_reqs, self._layout.max_pages, limits.max_drafts)
        pack_plan(plan, self._layout, _place(self.driver.memory, self.states[SENT_BOX], number))
        rows = StepRows(plan, table, limits.page_tokens)
        self._enter(plan, table)
        self._counts.enter(plan.entering)
        self._bound(body).derive(rows.inputs)
        given = self._head(rng, top, rows.inputs, plan.num_logits)
        rows.advance(given["ids"])
        want = _counts(plan, rows, limits)
        made: list[Any] = []
        for _ in range(plan.drafts):
            assert draft is not None
            self._bound(draft).derive(rows.inputs)
            if not plan.num_picking:
                break
            found = self._head(rng, top, rows.inputs, plan.num_picking)
            made.append(rows.draft(found["ids"]))
        self.driver.synchronize()
        self._turn += 1
        self._check(plan, table, given, made, number, head)
        found = self.driver.memory.read(self.states[COUNTS]).view(np.int32).reshape(want.shape)
        counted = [enter.seq for enter in plan.entering if enter.counted]
        require_equal("the state 'counts'", found[counted], want[counted], head)

    def _head(
        self, rng: np.random.Generator, head: _Bound, want: StepInputs, count: int
    ) -> dict[str, Any]:
        """What a head gives, drawn, slice by slice: no number stands twice but for the ids."""
        given: dict[str, Any] = {}
        for name in head.program.outputs:
            shape = (count, RESULT_WIDTHS[name])[: 1 + (RESULT_WIDTHS[name] > 1)]
            given[name] = rng.integers(1 << 20, 1 << 30, shape).astype(np.int32)
        given["ids"] = rng.choice(np.array(IDS, np.int32), count)
        most = head.program.bucket.rows
        for start in range(0, count, most):
            part = slice(start, min(start + most, count))
            head.derive(want, part)
            head.give({name: values[part] for name, values in given.items()})
        return given

    def _enter(self, plan: StepPlan, table: StateTable) -> None:
        """The rows as they were before the step, in the device's state."""
        fresh = StateTable(table.max_reqs, table.max_pages, table.max_drafts)
        fresh.change(plan)
        for name in STEP_STATE:
            start = self._layout.field(name).offset
            self.driver.memory.put(self.states[SEQUENCES], fresh.fields[name], start)

    def _field(self, name: str) -> Any:
        memory = self.driver.memory
        return memory.read(memory.place(self.states[SEQUENCES], self._layout.field(name)))

    def _check(
        self,
        plan: StepPlan,
        table: StateTable,
        given: dict[str, Any],
        made: list[Any],
        number: int,
        head: Program,
    ) -> None:
        for name in STEP_STATE:
            found = self._field(name)
            require_equal(f"the state's {name!r}", found, table.fields[name], head)
        place = _place(self.driver.memory, self.states[RESULT_BOX], number)
        for name, values in given.items():
            found = self._layout.rows_of(place, name, len(values))
            require_equal(f"the result {name!r}", found, values, head)
        if made:
            found = self._layout.drafts_of(place, plan.num_picking)[:, : plan.drafts]
            require_equal("the result 'drafts'", found, np.stack(made, axis=1), head)


def _counts(plan: StepPlan, rows: StepRows, limits: Limits) -> Any:
    """What a step must leave of the state `COUNTS`."""
    found = np.zeros(counts_shape(limits), np.int32)
    for enter in plan.entering:
        np.add.at(found[enter.seq], np.array(enter.outputs, np.int64), OUTPUT)
    if rows.counted is not None:
        np.add.at(found, rows.counted, OUTPUT)
    return found


def _place(memory: DeviceMemory, box: Buffer, number: int) -> Any:
    """One place of a box, as numpy sees it."""
    return memory.array(box).view(np.int32).reshape(PLACES, -1)[number]


def require_equal(what: str, found: Any, want: Any, program: Program) -> None:
    """Raise WrongKernel, which says `what` differs, unless two arrays hold the same numbers."""
    if not np.array_equal(found, want):
        raise WrongKernel(
            f"the step's kernels are wrong on this device: {what} differs in a drawn step of"
            f" program {program.name}. Recompile the artifact, or repair the driver"
        )
