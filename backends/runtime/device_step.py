"""Enqueues steps on a device that keeps the sequences' state: nothing comes back in between.

The plan is sent; kernels before and behind the layers derive every program's inputs from it and
take over what was picked (`ir/contract/step_layout.py`). Knows no artifact.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from lostwax.backends.runtime.bound_program import BoundProgram, Memory
from lostwax.backends.runtime.driver import Driver
from lostwax.backends.runtime.pack_plan import pack_plan
from lostwax.backends.runtime.replay_step import BoundStage
from lostwax.backends.runtime.result_copy import ReadRows
from lostwax.backends.runtime.state_table import StateTable
from lostwax.backends.runtime.tensors import tensor_of
from lostwax.backends.runtime.ticket import Started
from lostwax.ir.contract.step import StepResult
from lostwax.ir.contract.step_layout import PLAN, SEQUENCES, StepLayout
from lostwax.ir.contract.step_plan import StepPlan
from lostwax.ir.contract.step_state import STEP_STATE


class DeviceStep:
    """Steps over one device's memory. `state` is what the host knows of the sequences: all of it
    but lengths and tokens, of which it has bounds."""

    def __init__(
        self, layout: StepLayout, memory: Memory, state: StateTable, driver: Driver
    ) -> None:
        self._layout = layout
        self._state = state
        self._driver = driver
        self._plan = memory.states[PLAN].view(torch.int32)
        self.fields = {
            name: tensor_of(memory.states[SEQUENCES], layout.field(name)) for name in STEP_STATE
        }
        """The state on the device."""

    def start(self, stages: Sequence[BoundStage], plan: StepPlan) -> Started:
        """Enqueue a step's body and head, and those of its drafts."""
        self._send_state(plan)
        host = self._driver.staging(self._layout.plan_bytes).view(torch.int32)
        packed = pack_plan(plan, self._layout, host.numpy())
        self._plan[: packed.size].copy_(host[: packed.size], non_blocking=True)
        (body, head), *drafts = stages
        body.replay()
        reads = _replay_head(head, plan.num_logits)
        for draft, *heads in drafts:
            draft.replay()
            for each in heads:
                each.replay()
        tokens = self.fields["tokens"]
        following = self._driver.staging(4 * tokens.numel()).view(tokens.dtype).view(tokens.shape)
        if drafts and packed.picking:
            following.copy_(tokens, non_blocking=True)
        self._state.fields["length"][np.array(plan.seqs)] = plan.ends

        def read() -> StepResult:
            result = StepResult(program=body.program.name)
            if plan.num_logits:
                result.head = head.program.name
            for rows in reads:
                for name, values in rows().items():
                    getattr(result, name).extend(values)
            if drafts and packed.picking:
                result.drafts = following[packed.picking, 1 : 1 + plan.drafts].tolist()
            return result

        return Started(self._driver.mark(), read)

    def _send_state(self, plan: StepPlan) -> None:
        """Bring what the plan changes, behind the steps that were enqueued."""
        self._state.change(plan)
        seqs = [enter.seq for enter in plan.entering]
        if seqs:
            rows = self._sent(np.array(seqs, np.int64))
            for name, field in self.fields.items():
                field.index_copy_(0, rows, self._sent(self._state.fields[name][seqs]))
        if plan.new_pages:
            listed = [(new.seq, new.index, new.page) for new in plan.new_pages]
            seq, number, page = np.array(listed, np.int64).T
            at = self._sent(seq * self._layout.max_pages + number)
            flat = self.fields["pages"].view(-1)
            flat.index_copy_(0, at, self._sent(page.astype(np.int32)))

    def _sent(self, values: Any) -> torch.Tensor:
        """The array on the device; its copy does not wait."""
        array = torch.from_numpy(np.ascontiguousarray(values))
        host = self._driver.staging(array.nbytes).view(array.dtype).view(array.shape)
        return host.copy_(array).to(self._plan.device, non_blocking=True)


def _replay_head(head: BoundProgram, count: int) -> list[ReadRows]:
    """Replay a head as often as `count` rows want, at least once: it ends the stage."""
    reads: list[ReadRows] = []
    most = head.program.bucket.rows
    for start in range(0, max(count, 1), most):
        head.replay()
        if start < count:
            reads.append(head.results.start(min(most, count - start)))
    return reads
