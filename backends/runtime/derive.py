"""Makes a step's inputs from its plan and the sequences' state. Knows no bucket and no padding.

The time follows the rows and what changes, never the context: page lists stay where they are, and
a program's buffers take over those rows alone that they do not hold yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lostwax.backends.runtime.state_table import StateTable
from lostwax.ir.contract.step_plan import Span, StepPlan


@dataclass(frozen=True, slots=True)
class StepInputs:
    """A step's real rows: 1-D arrays by name, as STEP_INPUTS says, but for the page table, which
    has a row of `state.pages` for each of `seqs`."""

    values: dict[str, Any]  # arrays of two dtypes
    seqs: Any
    state: StateTable


def derive(plan: StepPlan, state: StateTable, page_tokens: int) -> StepInputs:
    """Change the state as the plan says, and make the inputs of the step's body and head."""
    state.change(plan)
    seqs, starts, counts = (
        np.array(values, np.int32) for values in (plan.seqs, plan.starts, plan.counts)
    )
    ends = starts + counts
    q_starts = np.zeros(len(seqs) + 1, np.int32)
    np.cumsum(counts, out=q_starts[1:])
    rows, positions = seqs, starts  # of a row each
    if len(plan.tokens) != len(seqs):
        rows = seqs.repeat(counts)
        positions = np.arange(len(rows), dtype=np.int32) + (starts - q_starts[:-1]).repeat(counts)
    page, offset = np.divmod(positions, page_tokens)
    values: dict[str, Any] = {
        "tokens": np.array(plan.tokens, np.int32),
        "positions": positions,
        "slots": state.pages[rows, page] * page_tokens + offset,
        "q_starts": q_starts,
        "kv_lens": ends,
        "hidden_rows": _rows_of(plan.hidden),
    }
    if plan.logits:
        values |= _of_logits(plan, state, rows, positions)
    if plan.entry != "draft":
        state.fields["length"][seqs] = ends
    return StepInputs(values, seqs, state)


def _of_logits(plan: StepPlan, state: StateTable, rows: Any, positions: Any) -> dict[str, Any]:
    """Inputs of the head; `rows` are the sequences of the step's rows."""
    logit_rows = _rows_of(plan.logits)
    seqs, fields = rows[logit_rows], state.fields
    temperature, top_p = fields["temperature"][seqs], fields["top_p"][seqs]
    targets = np.full(len(seqs), -1, np.int32)
    if plan.scored:
        scored = _rows_of(plan.scored)
        targets[scored] = plan.targets
        temperature[scored], top_p[scored] = 0, 1  # nobody asks what they pick
    # A draft row holds the token behind its position, and picks the one behind that.
    behind = 2 if plan.entry == "draft" else 1
    return {
        "logit_rows": logit_rows,
        "temperature": temperature,
        "top_p": top_p,
        "seeds": fields["seed"][seqs],
        # Counting outputs makes a token's noise independent of chunks, drafts and neighbours.
        "counters": np.maximum(positions[logit_rows] + behind - fields["num_prompt"][seqs], 0),
        "targets": targets,
    }


def _rows_of(spans: Sequence[Span]) -> Any:
    """The rows of all spans, in order."""
    ranges = [np.arange(first, first + count, dtype=np.int32) for first, count in spans]
    if len(ranges) == 1:
        return ranges[0]
    return np.concatenate(ranges) if ranges else np.empty(0, np.int32)
