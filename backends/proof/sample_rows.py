"""The step of a few rows of a larger one: what a region's reference needs to give just these.

Rows of a step depend on no other row but through the caches, so that the reference of sampled rows
is the reference of a step that has no others. Knows requests, pages and the gathering of rows, no
other op.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from xdsl.ir import Attribute

from lostwax.backends.plan.row_axes import LOGIT_ROWS, PAGES, REQUESTS, ROWS, STATES, Axes
from lostwax.backends.proof.samples import sampled_rows
from lostwax.backends.proof.step_cases import StepCase
from lostwax.ir.contract.step import STEP_INPUTS, TRASH_PAGE
from lostwax.ir.dialects.core import GatherRowsOp
from lostwax.ir.dialects.kv import AppendOp
from lostwax.ir.reference.dtype import Array
from lostwax.ir.region import RegionMatch
from lostwax.ir.types import TensorType


@dataclass(frozen=True)
class RowSample:
    """Sampled indexes of first axes by symbol, and the step of these alone."""

    full: StepCase
    case: StepCase
    chosen: Mapping[str, Array]
    axes: Axes

    def of(self, kind: Attribute) -> Array | None:
        """Which indexes of its first axis are sampled of a value of this type; None: all."""
        symbol = self.axes.symbol(kind)
        return None if symbol is None else self.chosen.get(symbol)

    def of_rows(self) -> list[int]:
        """The step's sampled rows."""
        return [int(row) for row in self.chosen[ROWS]]

    def real(self, kind: TensorType) -> int:
        """How many indexes of the first axis, from the first on, are no padding."""
        counts = {ROWS: "positions", LOGIT_ROWS: "logit_rows"}
        name = counts.get(self.axes.symbol(kind) or "")
        return kind.at(self.full.env)[0] if name is None else _real(self.full, name)


def _real(case: StepCase, name: str) -> int:
    """Rows that are no padding; none of what the case has not."""
    return int((case.inputs[name] >= 0).sum()) if name in case.inputs else 0


def step_input(field: str, kind: Attribute, axes: Axes) -> str:
    """The step input that an operand field stands for (`rows`: of a head or of a draft)."""
    if field != "rows":
        return field
    return "logit_rows" if axes.symbol(kind) == LOGIT_ROWS else "hidden_rows"


def sample_rows(match: RegionMatch, case: StepCase, segment: str) -> RowSample:
    """Rows that stand for all, with those that they are gathered from, and their requests' pages.

    All rows are sampled where the region reads what its own rows append, or gathers rows of the
    step for rows of the step.
    """
    decodes = segment == "decode"
    axes = Axes(case.env[ROWS] // case.env[REQUESTS] if decodes else None)
    starts = case.inputs.get("q_starts", np.zeros(1, np.int32))
    rows = sampled_rows(starts, int(starts[-1]), case.env.get(ROWS, 0))
    real = _real(case, "logit_rows")
    logit_rows = sampled_rows(np.zeros(1, np.int32), real, case.env.get(LOGIT_ROWS, 0))
    states = np.zeros(1, np.int64)
    gathers = [op for op in match.ops.values() if isinstance(op, GatherRowsOp)]

    def gathered(op: GatherRowsOp) -> Array:
        index = case.inputs[step_input("rows", op.rows.type, axes)]
        index = index[rows if axes.symbol(op.rows.type) == ROWS else logit_rows]
        return index[index >= 0]

    within = (axes.symbol(op.x.type) == ROWS == axes.symbol(op.rows.type) for op in gathers)
    if _reads_its_own(match) or any(within):
        rows = np.arange(int(starts[-1]))
    for op in gathers:
        if axes.symbol(op.x.type) == ROWS:
            rows = np.union1d(rows, gathered(op))
    for op in gathers:
        if axes.symbol(op.x.type) == STATES:
            states = np.union1d(states, gathered(op))
    chosen = {ROWS: rows, LOGIT_ROWS: logit_rows, STATES: states}
    if PAGES in case.env:
        chosen[PAGES] = _pages(case, rows)
    if axes.one_row:
        chosen[REQUESTS] = rows
    return RowSample(case, _reduced(case, chosen), chosen, axes)


def _reads_its_own(match: RegionMatch) -> bool:
    appended = {op.out for op in match.ops.values() if isinstance(op, AppendOp)}
    return any(
        operand in appended and not isinstance(op, AppendOp)
        for op in match.ops.values()
        for operand in op.operands
    )


def _requests(case: StepCase, rows: Array) -> Array:
    """Of every row that belongs to one, its request."""
    starts = case.inputs["q_starts"]
    return np.searchsorted(starts, rows[rows < starts[-1]], side="right") - 1


def _pages(case: StepCase, rows: Array) -> Array:
    """The trash page and the pages of the rows' requests."""
    table = case.inputs["page_table"][np.unique(_requests(case, rows))]
    return np.union1d(table.reshape(-1), [TRASH_PAGE]).astype(np.int64)


def _reduced(case: StepCase, chosen: Mapping[str, Array]) -> StepCase:
    """The step of the chosen rows: rows, requests' starts and pages count anew."""
    inputs: dict[str, Array] = {}
    for name, array in case.inputs.items():
        of_axis = chosen.get(str(STEP_INPUTS[name].dims[0]))
        inputs[name] = array if of_axis is None else array[of_axis]
    sizes = {symbol: each.size for symbol, each in chosen.items() if symbol in case.env}
    reduced = replace(case, inputs=inputs, env={**case.env, **sizes})
    if PAGES not in chosen:
        return reduced
    pages, page_tokens = chosen[PAGES], case.page_tokens
    table = inputs["page_table"]
    inputs["page_table"] = np.where(np.isin(table, pages), np.searchsorted(pages, table), 0)
    slots = inputs["slots"]
    inputs["slots"] = np.searchsorted(pages, slots // page_tokens) * page_tokens
    inputs["slots"] += slots % page_tokens
    starts = case.inputs["q_starts"]
    requests = chosen.get(REQUESTS)
    if requests is not None:
        starts = np.append(starts[requests], starts[-1])
    inputs["q_starts"] = np.searchsorted(chosen[ROWS], starts).astype(starts.dtype)
    return reduced
