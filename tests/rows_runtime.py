"""A runtime over the real state and rows, whose model is a function of a step's inputs.

No program runs: `StateTable` and `StepRows` do all that they do below an artifact. `OracleRuntime`
holds every step against the oracle of plain lists. Knows nothing of the engine but the step
contract.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from fake_runtime import FACTS, FakeLimits
from run_at_once import require_submittable
from step_oracle import Sequences, StepBatch

from lostwax.backends.cpu.driver import CpuDriver
from lostwax.backends.cpu.target import CPU
from lostwax.backends.runtime.bias_state import BiasState
from lostwax.backends.runtime.count_state import CountState
from lostwax.backends.runtime.driver import no_kernels
from lostwax.backends.runtime.mask_gate import MaskGate, Masks
from lostwax.backends.runtime.state_table import StateTable
from lostwax.backends.runtime.step_rows import StepRows
from lostwax.ir.contract.program import Entry
from lostwax.ir.contract.step import HEAD_INPUTS, StepResult
from lostwax.ir.contract.step_plan import StepPlan
from lostwax.ir.contract.step_state import STEP_STATE

Inputs = dict[str, Any]
"""Arrays of a body and its head by name, as `StepInputs.values`."""
Model = Callable[[Entry, Inputs], Any]
"""What a body and its head pick: i32 [R], one a logit row, of which there is one at least."""

_BODY_INPUTS = ("tokens", "positions", "slots", "q_starts", "kv_lens", "hidden_rows")


@dataclass(frozen=True, slots=True)
class Ran:
    """One body with its head: what they read, and what was picked."""

    entry: Entry
    values: Inputs
    ids: Any


class KeptTicket:
    """A step that has run, which nobody is told before he waits: so it counts as in flight.

    Where its rows wait for masks, `play` runs it when these come.
    """

    done = False

    def __init__(self, gate: MaskGate, play: Callable[[Masks | None], StepResult]) -> None:
        self._gate = gate
        self._play = play
        self._kept = play(None) if gate.is_open else None

    @property
    def waits(self) -> bool:
        """Whether masks must come first."""
        return not self._gate.is_open

    def finish(self, masks: Masks) -> None:
        """Run the step."""
        self._gate.take(masks)
        self._kept = self._play(masks.copy())

    def result(self) -> StepResult:
        """What the step gave."""
        self._gate.require_open()
        assert self._kept is not None
        return self._kept


class RowsRuntime:
    """Runs steps when they are submitted. `rows` may be a mutant."""

    rows = StepRows
    overlaps = False
    pays_by_row = False

    def __init__(self, limits: FakeLimits, model: Model) -> None:
        self.limits = limits
        self.facts = FACTS
        max_pages = -(-limits.max_context // limits.page_tokens)
        self.state = StateTable(limits.max_reqs, max_pages, limits.max_drafts)
        rows = 2 * (limits.max_reqs + 1)
        table = np.zeros(4 * rows * limits.vocab_size, np.uint8)
        self.biases = torch.from_numpy(table).view(torch.float32).view(rows, -1)
        """What `bias_rows` name, for the model."""
        self._bias_state = BiasState(table, limits.vocab_size, CpuDriver(CPU, no_kernels, {}))
        counts = np.zeros(2 * rows * limits.vocab_size, np.uint8)
        self.counts = torch.from_numpy(counts).view(torch.int32).view(rows // 2, -1)
        """What `count_rows` name."""
        self._count_state = CountState(counts, limits.vocab_size, CpuDriver(CPU, no_kernels, {}))
        self._model = model
        self._last: KeptTicket | None = None
        self.masks: Masks | None = None
        """Those of the step that runs, for the model."""

    def submit(self, plan: StepPlan) -> KeptTicket:
        """Run a step with its drafts."""
        require_submittable(plan, self.limits, self._last is not None and self._last.waits)
        assert not self.state.refusal(plan)

        def play(masks: Masks | None) -> StepResult:
            self.masks = masks
            return self.play(plan, [])

        gate = MaskGate(plan.num_masked, self.limits.vocab_size)
        self._last = KeptTicket(gate, play)
        return self._last

    def play(self, plan: StepPlan, ran: list[Ran]) -> StepResult:
        """The step, as `StepReplay` runs it; `ran` gets its bodies."""
        self._bias_state.enter(plan.entering)
        self._count_state.enter(plan.entering)
        rows = self.rows(plan, self.state, self.limits.page_tokens)
        ran.append(self._body(plan.entry, rows))
        ids = ran[-1].ids
        result = StepResult(ids=ids.tolist(), logprobs=[0.0] * len(ids), program="rows")
        rows.advance(ids)
        if rows.counted is not None:
            self._count_state.add(*rows.counted)
        made: list[Any] = []
        for _ in range(plan.drafts):
            ran.append(self._body("draft", rows))
            if not plan.num_picking:
                break
            made.append(rows.draft(ran[-1].ids))
        if made:
            result.drafts = np.stack(made, axis=1).tolist()
        return result

    def _body(self, entry: Entry, rows: StepRows) -> Ran:
        values = rows.inputs.values
        is_asked = "logit_rows" in values
        ids = (
            self._model(entry, {**values, "biases": self.biases, "counts": self.counts})
            if is_asked
            else np.empty(0, np.int32)
        )
        return Ran(entry, values, ids)


class OracleRuntime(RowsRuntime):
    """Every input of every body, every draft and what a step leaves must be the oracle's."""

    def __init__(self, limits: FakeLimits, model: Model) -> None:
        super().__init__(limits, model)
        self._oracle = Sequences(limits.page_tokens)

    def play(self, plan: StepPlan, ran: list[Ran]) -> StepResult:
        """The step by both."""
        result = super().play(plan, ran)
        bodies = iter(ran)

        def run(batch: StepBatch) -> StepResult:
            body = next(bodies)
            assert body.entry == batch.entry
            names = (*_BODY_INPUTS, *(HEAD_INPUTS if batch.logit_rows else ()))
            for name in names:
                found, want = body.values[name].tolist(), getattr(batch, name)
                assert found == want, f"{name} of a {batch.entry} body: {found}, not {want}"
            return StepResult(ids=body.ids.tolist())

        assert self._oracle.play(plan, run).drafts == result.drafts
        assert next(bodies, None) is None
        self._check_state(plan)
        return result

    def _check_state(self, plan: StepPlan) -> None:
        for seq in plan.seqs:
            held = self._oracle.rows[seq]
            for name, want in (
                ("length", held.length),
                ("tokens", held.tokens),
                ("pages", held.pages),
            ):
                found = self.state.fields[name][seq].tolist()
                if isinstance(want, list):
                    want = [*want, *[STEP_STATE[name].padding] * len(found)][: len(found)]
                assert found == want, f"{name} of sequence {seq}: {found}, not {want}"
