"""Runs the step's kernels of an artifact at its first boot, beside what numpy makes of the steps.

No probe of the artifact is asked: steps are drawn here, and `StepRows` is what they must agree
with, to the bit. Knows no layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np
import torch

from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.backends.runtime.derive import StepInputs
from lostwax.backends.runtime.driver import Driver
from lostwax.backends.runtime.input_layout import input_offsets
from lostwax.backends.runtime.pack_plan import pack_plan
from lostwax.backends.runtime.random_step import random_step
from lostwax.backends.runtime.run_probe import WrongKernel
from lostwax.backends.runtime.state_table import StateTable
from lostwax.backends.runtime.step_buffers import InputMemory, StepBuffers
from lostwax.backends.runtime.step_rows import StepRows
from lostwax.backends.runtime.tensors import tensor_of
from lostwax.ir.contract.check_program import code_of, step_states
from lostwax.ir.contract.check_views import end_of
from lostwax.ir.contract.probe import Evidence
from lostwax.ir.contract.program import HEADS, Launch, Program, View, views_of
from lostwax.ir.contract.step import input_shape, inputs_of
from lostwax.ir.contract.step_layout import (
    BOXES,
    PLACES,
    RESULT_BOX,
    SENT_BOX,
    SEQUENCES,
    STEP_OP,
    StepLayout,
)
from lostwax.ir.contract.step_plan import StepPlan
from lostwax.ir.contract.step_state import STEP_STATE

ROUNDS = 12
"""Steps over each program that is run."""
IDS = (3, 4)
"""What heads pick: few ids, so that drafts are often accepted."""


def prove_step(reader: ArtifactReader, driver: Driver) -> Evidence:
    """Run each kernel of the step over drawn steps. Raises WrongKernel where one is wrong."""
    proof = _Proof(reader, driver)
    rng = np.random.default_rng(0)
    for body, head, draft in proof.rounds():
        plan = random_step(
            rng, body.program, draft.program if draft else None, reader.manifest.limits, IDS
        )
        proof.play(rng, plan, body, head, draft)
    what = f"the step around the layers ({len(proof.ran)} kernels)"
    return Evidence(what=what, state="executed", ran=tuple(sorted(proof.ran)))


def _launches(program: Program) -> tuple[list[Launch], list[Launch]]:
    """Those of the step before and behind the program's own."""
    before = [launch for launch in program.prepare if launch.op.startswith(STEP_OP)]
    return before, [launch for launch in program.finish if launch.op.startswith(STEP_OP)]


class _Bound:
    """The step's launches of one program, over inputs and an arena of its own."""

    def __init__(self, program: Program, states: dict[str, torch.Tensor], driver: Driver) -> None:
        self.program = program
        self._offsets, size = input_offsets(program.segment, program.bucket)
        self._inputs = driver.allocate(size)
        self._driver = driver
        before, behind = _launches(program)
        every = [view for launch in (*before, *behind) for view in views_of(launch)]
        size = max((end_of(view) for view in every if view.space == "arena"), default=0)
        self._arena = driver.allocate(size)

        def resolve(view: View) -> torch.Tensor:
            if view.space == "arena":
                return tensor_of(self._arena, view)
            if view.space == "input":
                return tensor_of(self._inputs, view, self._offsets[view.name])
            return tensor_of(states[view.name], view)

        self._before = [driver.bind(launch, resolve) for launch in before]
        self._behind = [driver.bind(launch, resolve) for launch in behind]

    def derive(self, want: StepInputs, rows: slice = slice(None)) -> None:
        """Make the inputs, which must be those that the host would have filled in."""
        for launch in self._before:
            launch()
        self._driver.synchronize()
        segment, bucket = self.program.segment, self.program.bucket
        memory = InputMemory(torch.zeros(self._inputs.numel(), dtype=torch.uint8), self._driver)
        StepBuffers(segment, bucket, memory).fill(want, rows)
        found = self._inputs.cpu()
        for name in inputs_of(segment):
            start = self._offsets[name]
            at = slice(start, start + 4 * prod(input_shape(name, bucket)))
            if not found[at].equal(memory.host[at]):
                raise WrongKernel(_wrong(f"the input {name!r}", self.program))

    def pick(self, ids: Any) -> None:
        """Let the head have picked `ids`, i32 [rows or fewer]."""
        picked = tensor_of(self._arena, self.program.outputs["ids"])
        picked[: len(ids)].copy_(torch.from_numpy(ids))
        for launch in self._behind:
            launch()


class _Proof:
    """Memory of steps, and the programs that have every kernel of theirs between them."""

    def __init__(self, reader: ArtifactReader, driver: Driver) -> None:
        manifest = reader.manifest
        self._limits = manifest.limits
        self._layout = StepLayout.of(manifest.limits)
        self._driver = driver
        self._states = {
            name: driver.staging(size).zero_() if name in BOXES else driver.allocate(size)
            for name, size in step_states(manifest).items()
        }
        self._turn = 0
        self.ran: set[str] = set()
        kinds: dict[str, list[_Bound]] = {"body": [], "head": [], "draft": []}
        for ref in manifest.programs:
            kind = "head" if ref.segment in HEADS else "draft" if ref.segment == "draft" else "body"
            program = reader.program(ref.file)
            codes = {code_of(launch) for half in _launches(program) for launch in half}
            if codes <= self.ran and kinds[kind]:
                continue
            self.ran |= codes
            kinds[kind].append(_Bound(program, self._states, driver))
        self._kinds = kinds

    def rounds(self) -> Iterator[tuple[_Bound, _Bound, _Bound | None]]:
        """A body, a head and a draft body for each step: every one of them several times."""
        bodies, heads, drafts = (self._kinds[kind] for kind in ("body", "head", "draft"))
        for i in range(ROUNDS * max(len(bodies), len(heads), len(drafts)) * len(bodies)):
            draft = drafts[i % len(drafts)] if drafts else None
            yield bodies[i % len(bodies)], heads[i // len(bodies) % len(heads)], draft

    def play(
        self,
        rng: np.random.Generator,
        plan: StepPlan,
        body: _Bound,
        head: _Bound,
        draft: _Bound | None,
    ) -> None:
        """Run the step's kernels in order; what they leave must be what numpy leaves."""
        limits, number = self._limits, self._turn % PLACES
        table = StateTable(limits.max_reqs, self._layout.max_pages, limits.max_drafts)
        pack_plan(plan, self._layout, _place(self._states[SENT_BOX], number))
        rows = StepRows(plan, table, limits.page_tokens)
        self._enter(plan, table)
        body.derive(rows.inputs)
        ids = self._head(rng, head, rows.inputs, plan.num_logits)
        rows.advance(ids)
        made: list[Any] = []
        for _ in range(plan.drafts):
            assert draft is not None
            draft.derive(rows.inputs)
            if not plan.num_picking:
                break
            made.append(rows.draft(self._head(rng, head, rows.inputs, plan.num_picking)))
        self._driver.synchronize()
        self._turn += 1
        self._check(plan, table, ids, made, number, head.program)

    def _head(self, rng: np.random.Generator, head: _Bound, want: StepInputs, count: int) -> Any:
        ids = rng.choice(np.array(IDS, np.int32), count)
        most = head.program.bucket.rows
        for start in range(0, count, most):
            stop = min(start + most, count)
            head.derive(want, slice(start, stop))
            head.pick(ids[start:stop])
        return ids

    def _enter(self, plan: StepPlan, table: StateTable) -> None:
        """The rows as they were before the step, in the device's state."""
        fresh = StateTable(table.max_reqs, table.max_pages, table.max_drafts)
        fresh.change(plan)
        for name in STEP_STATE:
            self._field(name).copy_(torch.from_numpy(fresh.fields[name]))

    def _field(self, name: str) -> torch.Tensor:
        return tensor_of(self._states[SEQUENCES], self._layout.field(name))

    def _check(
        self,
        plan: StepPlan,
        table: StateTable,
        ids: Any,
        made: list[Any],
        number: int,
        head: Program,
    ) -> None:
        for name in STEP_STATE:
            if not np.array_equal(self._field(name).cpu().numpy(), table.fields[name]):
                raise WrongKernel(_wrong(f"the state's {name!r}", head))
        place = _place(self._states[RESULT_BOX], number)
        results, most = self._layout.results, max(self._limits.max_drafts, 1)
        if place[: len(ids)].tolist() != ids.tolist():
            raise WrongKernel(_wrong("the result 'ids'", head))
        if made:
            count = most * plan.num_picking
            found = place[results["drafts"] :][:count].reshape(-1, most)[:, : plan.drafts]
            if not np.array_equal(found, np.stack(made, axis=1)):
                raise WrongKernel(_wrong("the result 'drafts'", head))


def _place(box: torch.Tensor, number: int) -> Any:
    """One place of a box, as numpy sees it."""
    return box.view(torch.int32).numpy().reshape(PLACES, -1)[number]


def _wrong(what: str, program: Program) -> str:
    return (
        f"the step's kernels are wrong on this device: {what} differs in a drawn step of program"
        f" {program.name}. Recompile the artifact, or repair the driver"
    )
