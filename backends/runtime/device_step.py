"""Enqueues steps on a device that keeps the sequences' state: nothing comes back in between.

Plans and results pass through boxes in host memory, which the device reads and writes itself; the
kernels around the layers derive every program's inputs and take over what was picked
(`ir/contract/step_layout.py`). Knows no artifact.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from lostwax.backends.runtime.bias_state import BiasState
from lostwax.backends.runtime.bound_program import BoundProgram, Memory
from lostwax.backends.runtime.count_state import CountState
from lostwax.backends.runtime.driver import Driver, Mark
from lostwax.backends.runtime.mask_gate import Masks
from lostwax.backends.runtime.mask_state import MaskState
from lostwax.backends.runtime.pack_plan import PlanPacker
from lostwax.backends.runtime.replay_step import BoundStage
from lostwax.backends.runtime.sequence_writer import SequenceWriter
from lostwax.backends.runtime.state_table import StateTable
from lostwax.backends.runtime.ticket import Held, Started
from lostwax.ir.contract.step import StepResult
from lostwax.ir.contract.step_layout import (
    PLACES,
    PLAN,
    RESULT_BOX,
    RESULT_WIDTHS,
    SENT_BOX,
    SEQUENCES,
    StepLayout,
)
from lostwax.ir.contract.step_plan import StepPlan
from lostwax.ir.contract.step_state import STEP_STATE

_FLOATS = ("logprobs", "target_logprobs", "top_logprobs")


class _Result:
    """A step's results, read out of its place once, when they are asked for or the place is."""

    def __init__(self, place: dict[str, Any], plan: StepPlan, picking: int) -> None:
        self._place = place
        self._plan = plan
        self.num_logits = plan.num_logits
        """Rows whose logits are wanted."""
        self.picking = picking
        """Sequences that pick."""
        self._found: StepResult | None = None
        self.mark: Mark | None = None
        self.programs: tuple[str, str] = ("", "")

    def read(self) -> StepResult:
        """The results; the step has run."""
        if self._found is None:
            names = tuple(RESULT_WIDTHS) if self._plan.head == "score" else ("ids", "logprobs")
            program, head = self.programs
            self._found = StepResult(program=program, head=head)
            for name in names:
                setattr(self._found, name, self._place[name][: self.num_logits].tolist())
            if self._plan.drafts:
                drafts = self._place["drafts"][: self.picking, : self._plan.drafts]
                self._found.drafts = drafts.tolist()
        return self._found


class DeviceStep:
    """Steps over one device's memory. `state` is what the host knows of the sequences: all of it
    but tokens, and lengths, of which it has bounds; where the `host_runs` them, lengths, too."""

    def __init__(
        self,
        layout: StepLayout,
        memory: Memory,
        state: StateTable,
        masks: MaskState,
        biases: BiasState,
        counts: CountState,
        driver: Driver,
        *,
        host_runs: bool = False,
    ) -> None:
        self._layout = layout
        self._masks = masks
        self._biases = biases
        self._counts = counts
        self._state = state
        self._driver = driver
        self._plan = memory.states[PLAN]
        self._sent, results = (
            driver.memory.array(memory.states[box]).view(np.int32).reshape(PLACES, -1)
            for box in (SENT_BOX, RESULT_BOX)
        )
        self._results = [_results_in(place, layout) for place in results]
        self._packer = PlanPacker(layout)
        self._unread: deque[_Result] = deque()
        self._turn = 0
        self._is_out_of_turn = False
        self._writer = SequenceWriter(layout, memory.states[SEQUENCES], driver)
        self.fields = {
            name: driver.memory.place(memory.states[SEQUENCES], layout.field(name))
            for name in STEP_STATE
        }
        """The state on the device."""
        self._lengths: Any = driver.memory.array_at(self.fields["length"]) if host_runs else None

    def reset(self) -> None:
        """Begin with the first place: programs were run over an empty plan to be captured."""
        self._plan[:] = 0
        self._turn = 0

    def start(self, stages: Sequence[BoundStage], plan: StepPlan) -> Started | Held:
        """Enqueue a step's body and head, and those of its drafts; the body alone where rows wait
        for masks."""
        if self._is_out_of_turn:
            self._take_turns_together()
        self._is_out_of_turn = True  # until all of it is enqueued
        self._free_a_place()
        number = self._turn % PLACES
        picking = self._packer.pack(plan, self._sent[number])
        self._send_state(plan)
        result = _Result(self._results[number], plan, picking)
        body, head = stages[0]
        result.programs = body.name, head.name if result.num_logits else ""
        body.replay()
        if not plan.masked:
            return self._finish(stages, plan, result)

        def finish(masks: Masks) -> Started:
            with self._driver.running():  # as the body ran, whoever brings the masks
                self._masks.write(masks)
                return self._finish(stages, plan, result)

        return Held(finish)

    def _finish(self, stages: Sequence[BoundStage], plan: StepPlan, result: _Result) -> Started:
        """Enqueue what stands behind the body."""
        _replay_head(stages[0][1], result.num_logits)
        for draft, *heads in stages[1:]:
            draft.replay()
            for each in heads:
                _replay_head(each, result.picking)
        lengths = self._state.fields["length"]
        if self._lengths is None:
            for seq, end in zip(plan.seqs, plan.ends, strict=True):
                lengths[seq] = end
        else:
            lengths[:] = self._lengths  # all of them: cheaper than to say which have changed
        result.mark = self._driver.mark()
        self._unread.append(result)
        self._turn += 1
        self._is_out_of_turn = False
        return Started(result.mark, result.read)

    def _take_turns_together(self) -> None:
        """A step broke off while it was enqueued: the device may have counted it, or not."""
        self._driver.synchronize()
        turn = np.array([self._turn % PLACES], np.int32)
        self._driver.memory.put(self._plan, turn, self._layout.array("turn").offset)

    def _free_a_place(self) -> None:
        """Read the results whose place comes next, if nobody has."""
        while len(self._unread) >= PLACES:
            oldest = self._unread.popleft()
            assert oldest.mark is not None
            oldest.mark.wait()
            oldest.read()

    def _send_state(self, plan: StepPlan) -> None:
        """Bring what the plan changes, behind the steps that were enqueued."""
        self._state.change(plan)
        self._biases.enter(plan.entering)
        self._counts.enter(plan.entering)
        if plan.entering:
            seqs = np.array([enter.seq for enter in plan.entering], np.int64)
            self._writer.rows(seqs, self._state.fields)
        if plan.new_pages:
            listed = [(new.seq, new.index, new.page) for new in plan.new_pages]
            self._writer.pages(*np.array(listed, np.int64).T)
        self._writer.send()


def _results_in(place: Any, layout: StepLayout) -> dict[str, Any]:
    """Each result's rows in a place, i32, of as many as a step may have, and the drafts."""
    found = {name: layout.rows_of(place, name, layout.max_rows) for name in RESULT_WIDTHS}
    found |= {name: found[name].view(np.float32) for name in _FLOATS}
    return found | {"drafts": layout.drafts_of(place, layout.max_reqs)}


def _replay_head(head: BoundProgram, count: int) -> None:
    """Replay a head as often as `count` rows want, at least once: it ends the stage."""
    for _ in range(0, max(count, 1), head.program.bucket.rows):
        head.replay()
