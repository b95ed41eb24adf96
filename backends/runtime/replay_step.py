"""Replays a step's programs over its rows, stage by stage. Knows no artifact and makes no plan.

Between the body and its head somebody may bring masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lostwax.backends.runtime.bound_program import BoundProgram
from lostwax.backends.runtime.count_state import CountState
from lostwax.backends.runtime.derive import StepInputs
from lostwax.backends.runtime.driver import Driver
from lostwax.backends.runtime.ranks import Ranks
from lostwax.backends.runtime.step_rows import StepRows
from lostwax.ir.contract.step import StepResult
from lostwax.ir.contract.step_plan import StepPlan

BoundStage = tuple[BoundProgram, ...]
"""A body, and its head where rows are asked for."""


class StepReplay:
    """Replays over one device's memory; what heads picked is agreed upon among the ranks."""

    def __init__(self, driver: Driver, ranks: Ranks, counts: CountState) -> None:
        self._driver = driver
        self._ranks = ranks
        self._counts = counts

    def body(self, stage: BoundStage, inputs: StepInputs) -> None:
        """Run a stage's body."""
        body = stage[0]
        body.step.fill(inputs)
        body.replay()

    def finish(self, stages: Sequence[BoundStage], rows: StepRows, plan: StepPlan) -> StepResult:
        """Run the head of a step whose body has run, then the bodies and heads of its drafts."""
        main, *drafts = stages
        found = self._heads(main, rows.inputs, plan.num_logits)
        result = StepResult(**found, program=main[0].name)
        if len(main) > 1:
            result.head = main[1].name
        rows.advance(self._agreed(result.ids))
        if rows.counted is not None:
            self._counts.add(*rows.counted)
        picked: list[Any] = []
        for stage in drafts:
            self.body(stage, rows.inputs)
            found = self._heads(stage, rows.inputs, plan.num_picking)
            if found:
                picked.append(rows.draft(self._agreed(found["ids"])))
        if picked:
            result.drafts = np.stack(picked, axis=1).tolist()
        return result

    def _agreed(self, ids: list[int]) -> Any:
        return self._ranks.agree(np.array(ids, np.int32))

    def _heads(self, stage: BoundStage, inputs: StepInputs, count: int) -> dict[str, Any]:
        """Replay a stage's head, if any, as often as `count` rows want; the results as lists."""
        found: dict[str, Any] = {}
        for head in stage[1:]:
            most = head.program.bucket.rows
            for start in range(0, count, most):
                stop = min(start + most, count)
                head.step.fill(inputs, slice(start, stop))
                head.replay()
                read = head.results.start(stop - start)
                self._driver.mark().wait()
                for name, values in read().items():
                    found.setdefault(name, []).extend(values)
        return found
