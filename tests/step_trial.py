"""Random histories of plans over the step's kernels, against the oracle. Knows no kernel."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from derive_trial import MAX_DRAFTS, MAX_PAGES, MAX_REQS, NUM_ROWS, PAGE, DeriveTrial
from step_oracle import StepBatch, padded

from lostwax.backends.gpu_kernels.lowerings.step import StepLaunches
from lostwax.backends.runtime.derive import StepInputs
from lostwax.backends.runtime.driver import Resolve, Thunk
from lostwax.backends.runtime.pack_plan import pack_plan
from lostwax.backends.runtime.state_table import NUMPY_DTYPES, StateTable
from lostwax.backends.runtime.step_rows import StepRows
from lostwax.backends.runtime.tensors import tensor_of
from lostwax.ir.contract.counts import COUNTS
from lostwax.ir.contract.program import HEADS, Bucket, Guard, KernelLaunch, Program, Segment, View
from lostwax.ir.contract.step import STEP_INPUTS, StepResult, input_shape, inputs_of
from lostwax.ir.contract.step_layout import (
    PLACES,
    PLAN,
    RESULT_BOX,
    SENT_BOX,
    SEQUENCES,
    StepLayout,
)
from lostwax.ir.contract.step_plan import StepPlan
from lostwax.ir.contract.step_state import STEP_STATE

MAX_ROWS = MAX_REQS * MAX_PAGES * PAGE
VOCAB = 9
LAYOUT = StepLayout(MAX_REQS, MAX_PAGES, MAX_DRAFTS, MAX_ROWS, VOCAB)
JUNK = 77
BODY = Bucket(tokens=MAX_ROWS + 3, reqs=MAX_REQS + 1, pages=MAX_PAGES)


def program(segment: Segment, bucket: Bucket) -> Program:
    """One without layers, whose head's ids lie at the arena's start."""
    ids = View(space="arena", name="", dtype="i32", shape=(bucket.rows,), strides=(1,))
    return Program(
        segment=segment, bucket=bucket, guard=Guard("any"), arena_bytes=4 * bucket.rows,
        prepare=(), blocks={}, calls=(), outputs={"ids": ids} if segment in HEADS else {},
    )  # fmt: skip


class Device:
    """Memory with junk in it, and the kernels over it, as `around` launches and `bind` binds
    them."""

    def __init__(
        self, around: StepLaunches, bind: Callable[[KernelLaunch, Resolve], Thunk]
    ) -> None:
        self._launches, self._bind = around, bind
        self.plan = torch.full((LAYOUT.plan_bytes // 4,), JUNK, dtype=torch.int32)
        self.sequences = torch.full((LAYOUT.sequences_bytes // 4,), JUNK, dtype=torch.int32)
        self.plan[LAYOUT.offsets["turn"]] = 0
        self.turn = 0
        self.counts = torch.full((MAX_REQS + 1, VOCAB), JUNK, dtype=torch.int32)
        self.sent = torch.full((PLACES, LAYOUT.place_size), JUNK, dtype=torch.int32)
        self.results = torch.full((PLACES, LAYOUT.results["end"]), JUNK, dtype=torch.int32)
        self.inputs: dict[str, torch.Tensor] = {}
        self.ids = torch.zeros(64, dtype=torch.int32)

    def field(self, name: str) -> Any:
        """A field of the state, as numpy sees it."""
        return tensor_of(self.sequences.view(torch.uint8), LAYOUT.field(name)).numpy()

    def place(self, box: torch.Tensor, back: int = 0) -> Any:
        """The place of this turn, or of one before."""
        return box[(self.turn - back) % PLACES].numpy()

    def run(self, launches: Sequence[KernelLaunch]) -> None:
        """Run launches."""
        for launch in launches:
            self._bind(launch, self._resolve)()

    def before(self, segment: Segment, bucket: Bucket) -> None:
        """Make a program's inputs, over junk."""
        self.inputs = {
            name: torch.full((4 * prod(input_shape(name, bucket)),), JUNK, dtype=torch.uint8)
            for name in inputs_of(segment)
        }
        self.run(self._launches.before(program(segment, bucket)))

    def behind(self, segment: Segment, bucket: Bucket) -> None:
        """Take over what a head picked."""
        self.run(self._launches.behind(program(segment, bucket)))

    def _resolve(self, view: View) -> torch.Tensor:
        if view.space == "state":
            buffers = {
                PLAN: self.plan, SEQUENCES: self.sequences,
                SENT_BOX: self.sent, RESULT_BOX: self.results, COUNTS: self.counts,
            }  # fmt: skip
            return tensor_of(buffers[view.name].view(-1).view(torch.uint8), view)
        if view.space == "input":
            return tensor_of(self.inputs[view.name], view)
        return self.ids[: view.shape[0]]


class KernelRows(StepRows):
    """A step by the kernels; what numpy makes of it is there only to be overtaken."""

    device: Device

    def __init__(self, plan: StepPlan, state: StateTable, page_tokens: int) -> None:
        super().__init__(plan, state, page_tokens)
        for enter in plan.entering:
            said = np.bincount(np.array(enter.outputs, np.int64), minlength=VOCAB)
            self.device.counts[enter.seq] = torch.from_numpy(2 * said)
            for name, field in STEP_STATE.items():
                row, values = self.device.field(name), getattr(enter, name)
                if field.dims:
                    row[enter.seq] = field.padding
                    row[enter.seq, : len(values)] = values
                else:
                    row[enter.seq] = values
        for new in plan.new_pages:
            self.device.field("pages")[new.seq, new.index] = new.page
        pack_plan(plan, LAYOUT, self.device.place(self.device.sent))
        self.device.turn += 1


class StepTrial(DeriveTrial):
    """Histories over the kernels."""

    rows = KernelRows

    def __init__(self, rng: random.Random, device: Device) -> None:
        super().__init__(rng)
        KernelRows.device = self._device = device

    def _run_main(self, batch: StepBatch, ids: list[int]) -> None:
        """What the kernels make of a body and its head must be the oracle's."""
        self._device.before(batch.entry, BODY)
        self._compare(batch, batch.entry, BODY)
        most = Bucket(rows=NUM_ROWS[batch.head])
        wanted = len(batch.logit_rows)
        if not wanted and batch.entry == "draft":
            return
        for start in range(0, max(wanted, 1), most.rows):
            part = slice(start, min(start + most.rows, wanted))
            self._device.before(batch.head, most)
            if wanted:  # a step without logit rows gets one that the oracle knows nothing of
                self._compare(batch, batch.head, most, part)
            self._device.ids[:] = JUNK
            self._device.ids[: len(ids[part])] = torch.tensor(ids[part], dtype=torch.int32)
            self._device.behind(batch.head, most)

    def _compare(
        self, batch: StepBatch, segment: Segment, bucket: Bucket, part: slice = slice(None)
    ) -> None:
        for name, values in padded(batch, segment, bucket, part).items():
            dtype = NUMPY_DTYPES[STEP_INPUTS[name].dtype]
            want = np.array(values, dtype)
            found = self._device.inputs[name].numpy().view(dtype).reshape(want.shape)
            assert np.array_equal(found, want), (segment, name, found, want)

    def _check_inputs(self, batch: StepBatch, inputs: StepInputs) -> None:
        pass

    def _check_state(self) -> None:
        super()._check_state()
        for seq in self._oracle.rows:
            for name in STEP_STATE:
                want = self._state.fields[name][seq]
                assert np.array_equal(self._device.field(name)[seq], want), f"{name} of {seq}"
        for seq, held in self._oracle.rows.items():
            said = [*held.enter.outputs, *(held.said if held.enter.counted else ())]
            want = 2 * np.bincount(np.array(said, np.int64), minlength=VOCAB)
            assert np.array_equal(self._device.counts[seq].numpy(), want), f"counts of {seq}"

    def _check_result(self, result: StepResult, plan: StepPlan, picking: int) -> None:
        place = self._device.place(self._device.results, back=1)
        assert place[: plan.num_logits].tolist() == result.ids
        if plan.drafts:
            drafts = place[LAYOUT.results["drafts"] :][: picking * MAX_DRAFTS]
            found = drafts.reshape(picking, MAX_DRAFTS)[:, : plan.drafts].tolist()
            assert found == result.drafts, (found, result.drafts)

    def picked(self, batch: StepBatch) -> StepResult:
        """Ids of a batch, which the kernels see, too."""
        result = super().picked(batch)
        self._run_main(batch, result.ids)
        return result
