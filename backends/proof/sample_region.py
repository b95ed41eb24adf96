"""What a region's reference must read to give samples of its results, and that reference.

`RULES` says of an op which parts of its operands some columns of its result follow from; an op
without a rule reads and gives whole rows. A region's sample is the composition, from its results
backwards. `INDEXED` are operands of which an op reads what another one names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod

import numpy as np
from xdsl.ir import SSAValue
from xdsl.irdl import IRDLOperation

from lostwax.backends.plan.row_axes import ROWS, STATES
from lostwax.backends.proof.sample_rows import RowSample
from lostwax.backends.proof.samples import sampled_columns, sampled_heads
from lostwax.backends.runtime.draw import At, taken
from lostwax.ir.reference.cache_bytes import CacheBytes
from lostwax.ir.reference.dtype import Array, Scaled, Value
from lostwax.ir.reference.interpret import Bound, evaluate_ops
from lostwax.ir.region import RegionMatch
from lostwax.ir.types import TensorType

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Part:
    """Columns that an op gives (None: all), and which indexes of its operands' axes it needs."""

    columns: Array | None
    axes: Mapping[str, At]


def _elementwise(shapes: Mapping[str, Shape], columns: Array) -> Part:
    if any(len(shape) != 2 for shape in shapes.values()):
        return Part(None, {})
    return Part(columns, {name: (None, columns) for name in shapes})


def _linear(shapes: Mapping[str, Shape], columns: Array) -> Part:
    return Part(columns, {"weight": (columns,)})


def _experts(shapes: Mapping[str, Shape], columns: Array) -> Part:
    return Part(columns, {"down": (None, columns)})


def _attend(shapes: Mapping[str, Shape], columns: Array) -> Part:
    """Whole heads."""
    _, heads, nope = shapes["q_nope"]
    of_head = shapes["kv_b"][0] // heads
    values = of_head - nope
    chosen = np.unique(columns // values)
    rows = (chosen[:, None] * of_head + np.arange(of_head)).reshape(-1)
    given = (chosen[:, None] * values + np.arange(values)).reshape(-1)
    by_head = (None, chosen)
    return Part(given, {"q_nope": by_head, "q_pe": by_head, "kv_b": (rows,)})


RULES: dict[str, Callable[[Mapping[str, Shape], Array], Part]] = {
    "core.add": _elementwise,
    "core.cast": _elementwise,
    "core.zeros_like": _elementwise,
    "core.silu_mul": _elementwise,
    "quant.linear": _linear,
    "moe.experts": _experts,
    "mla.attend": _attend,
}
"""By op: shapes of its operands and columns that are wanted of its result to what it reads."""

INDEXED: dict[str, tuple[str, tuple[str, ...]]] = {
    "core.embed": ("tokens", ("table",)),
    "core.gather_rows": ("rows", ("x",)),
    "moe.experts": ("ids", ("gate", "up", "down")),
    "sample.penalise": ("count_rows", ("counts",)),
    "sample.bias": ("bias_rows", ("biases",)),
    "sample.mask": ("mask_rows", ("masks",)),
}
"""By op: the operand that names indexes, and those whose first axis it means."""


def _operands(op: IRDLOperation) -> dict[str, SSAValue]:
    """By field, those that are single."""
    fields = {name: getattr(op, name) for name, _ in op.get_irdl_definition().operands}
    return {name: value for name, value in fields.items() if isinstance(value, SSAValue)}


def _merged(first: At, second: At) -> At:
    """The axes of both, the first's where both say something."""
    longest = max(len(first), len(second))
    a, b = ([*each, *[None] * (longest - len(each))] for each in (first, second))
    return tuple(x if x is not None else y for x, y in zip(a, b, strict=True))


def _same(first: At, second: At) -> bool:
    pairs = zip(_merged(first, ()), _merged(second, ()), strict=False)
    return len(first) == len(second) and all(
        (a is None and b is None) or (a is not None and b is not None and np.array_equal(a, b))
        for a, b in pairs
    )


HEAD_COLUMNS = 16
"""Of a head, some more than so many are compared."""


def output_columns(op_name: str, shape: Shape, heads: int | None) -> Array:
    """Columns of a result that are compared: of attention, some of some heads."""
    width = prod(shape[1:])
    if op_name != "mla.attend" or heads is None:
        return sampled_columns(width)
    of_head = width // heads
    inside = sampled_columns(of_head)
    few = inside[:: max(1, inside.size // HEAD_COLUMNS) | 1]
    columns = sampled_heads(heads)[:, None] * of_head + np.union1d(few, [0, of_head - 1])
    return columns.reshape(-1)


@dataclass
class RegionSample:
    """A region's samples: what to draw, and the reference of just these.

    `named` has the whole arrays of boundary operands that name indexes.
    """

    match: RegionMatch
    rows: RowSample
    named: Mapping[SSAValue, Array]
    columns: dict[SSAValue, Array] = field(default_factory=dict[SSAValue, Array])
    """Of each result that leaves the region and has columns: those that are compared."""
    given: dict[SSAValue, Array | None] = field(default_factory=dict[SSAValue, "Array | None"])
    """Of each result: the columns that its op gives, None: all."""
    drawn: dict[SSAValue, At] = field(default_factory=dict[SSAValue, At])
    """Of each boundary input: what is drawn of each axis."""
    _reads: dict[tuple[IRDLOperation, str], At] = field(
        default_factory=dict[tuple[IRDLOperation, str], At]
    )

    def __post_init__(self) -> None:
        for value in self.match.output_values():
            op = value.owner
            if isinstance(value.type, TensorType) and isinstance(op, IRDLOperation):
                if value.type.dtype_name.startswith("i"):
                    continue  # compared row by row
                shape = value.type.at(self.rows.full.env)
                query = self._shapes(op).get("q_nope")
                heads = None if query is None else query[1]
                self.columns[value] = output_columns(op.name, shape, heads)
        for op in reversed(list(self.match.ops.values())):
            self._plan(op)
        members = self.match.members
        for op in self.match.ops.values():
            for operand in op.operands:
                if operand.owner not in members:
                    self.drawn[operand] = self._drawn(operand)

    def _plan(self, op: IRDLOperation) -> None:
        """What the op reads, once it is known what is read of its results."""
        wanted = [self._wanted(result) for result in op.results]
        rule = RULES.get(op.name)
        part = Part(None, {})
        shapes = self._shapes(op)
        if rule is not None and len(wanted) == 1 and wanted[0] is not None:
            part = rule(shapes, wanted[0])
        for result in op.results:
            self.given[result] = part.columns
        index, tables = INDEXED.get(op.name, ("", ()))
        for name in _operands(op):
            axes = part.axes.get(name, ())
            if name in tables:
                axes = _merged(axes, (self._indexes(op, index, name),))
            self._reads[op, name] = axes

    def _shapes(self, op: IRDLOperation) -> dict[str, Shape]:
        kinds = {name: value.type for name, value in _operands(op).items()}
        env = self.rows.full.env
        return {name: k.at(env) for name, k in kinds.items() if isinstance(k, TensorType)}

    def _wanted(self, result: SSAValue) -> Array | None:
        """Columns of a result that are compared or read; None: all."""
        shape = result.type.sizes if isinstance(result.type, TensorType) else ()
        if len(shape) != 2:
            return None
        found = [self.columns[result]] if result in self.columns else []
        if result in self.match.output_values() and not found:
            return None
        for use in result.uses:
            op = use.operation
            if not isinstance(op, IRDLOperation) or op not in self.match.members:
                continue
            for name, value in _operands(op).items():
                if value is result:
                    axes = self._reads[op, name]
                    if len(axes) != 2 or axes[1] is None:
                        return None
                    found.append(axes[1])
        return np.unique(np.concatenate(found)) if found else None

    def _indexes(self, op: IRDLOperation, index: str, name: str) -> Array | None:
        """Ascending indexes of the first axis that the op reads of an operand; None: all."""
        operands = _operands(op)
        if self.rows.axes.symbol(operands[name].type) in (ROWS, STATES):
            return None  # by the sample of rows
        named = self.named.get(operands[index])
        if named is None:
            return None
        rows = self.rows.of(operands[index].type)
        each = np.unique(named if rows is None else named[rows])
        each = each[each >= 0]
        return each if each.size else np.zeros(1, np.int64)

    def _drawn(self, value: SSAValue) -> At:
        """Rows by the sample; other axes where all that read the value read the same."""
        reads = [
            self._reads[op, name]
            for op in self.match.ops.values()
            for name, operand in _operands(op).items()
            if operand is value
        ]
        same = reads and all(_same(reads[0], each) for each in reads)
        return _merged((self.rows.of(value.type),), reads[0] if same else ())

    def evaluate(self, values: dict[SSAValue, Bound]) -> None:
        """Add the results of the region's ops to `values`, which has the drawn inputs."""
        for op in self.match.ops.values():
            local = {operand: values[operand] for operand in op.operands}
            for name, operand in _operands(op).items():
                local[operand] = self._read(op, name, operand, values[operand])
            self._renumber(op, local)
            evaluate_ops([op], local, self.rows.case.env)
            values.update({result: local[result] for result in op.results})

    def _read(self, op: IRDLOperation, name: str, operand: SSAValue, value: Bound) -> Bound:
        """What the op reads of a value that may have more."""
        have = self.drawn.get(operand, (None, self.given.get(operand)))
        want = self._reads[op, name]
        at: list[Array | None] = []
        for axis, wanted in enumerate(want):
            held = have[axis] if axis < len(have) else None
            if wanted is None or (held is not None and np.array_equal(held, wanted)):
                at.append(None)
            else:
                at.append(wanted if held is None else np.searchsorted(held, wanted))
        return value if isinstance(value, CacheBytes) else part_of(value, at)

    def _renumber(self, op: IRDLOperation, local: dict[SSAValue, Bound]) -> None:
        """Indexes count among what is read."""
        if op.name not in INDEXED:
            return
        index, tables = INDEXED[op.name]
        operands = _operands(op)
        table, named = operands[tables[0]], local[operands[index]]
        held = self._reads[op, tables[0]][0] if self._reads[op, tables[0]] else None
        if held is None:
            held = self.rows.of(table.type)
        if held is not None:
            assert isinstance(named, np.ndarray)
            found = np.where(named >= 0, np.searchsorted(held, named), -1)
            local[operands[index]] = found.astype(named.dtype)


def part_of(value: Value, at: At) -> Value:
    """A value at the indexes of each axis; of scales, those of the chosen rows."""
    if all(wanted is None for wanted in at):
        return value
    if not isinstance(value, Scaled):
        return taken(value, at)
    axes = [*at, *[None] * (value.values.ndim - len(at))]
    return scaled_part(taken(value.values, axes), value.scales, axes, value.rows, value.cols)


def scaled_part(values: Array, scales: Array, axes: At, rows: int, cols: int) -> Scaled:
    """Chosen values with all scales, of which each chosen row gets its own."""
    chosen = axes[-2] if len(axes) > 1 else None
    if len(axes) and axes[-1] is not None:
        raise ValueError("no op reads some columns of a scaled value")
    leading = [*axes[:-2], None if chosen is None else chosen // rows]
    return Scaled(values, taken(scales, leading), rows if chosen is None else 1, cols)
