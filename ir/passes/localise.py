"""localise: one rank's shapes, and the collectives that join what ranks hold apart.

Mechanical: `shard` has decided. Works once a block kind, so its cost is that of the kinds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, cast

from xdsl.context import Context
from xdsl.dialects import builtin, func
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter
from xdsl.utils.exceptions import PassFailedException

from lostwax.ir.dialects.dist import (
    LOCAL,
    MESH,
    SHARD,
    AllGatherOp,
    AllReduceOp,
    PartialAttr,
    SplitAttr,
)
from lostwax.ir.passes.shard import WHOLE, State, functions_with_weights
from lostwax.ir.size import Size
from lostwax.ir.types import TensorType, tensor


@dataclass
class _Function:
    """Rewrites one function in the order of its ops."""

    function: func.FuncOp
    ranks: dict[str, int]
    states: dict[SSAValue, State] = field(default_factory=dict[SSAValue, State])
    wholes: dict[SSAValue, SSAValue] = field(default_factory=dict[SSAValue, SSAValue])
    kinds: dict[SSAValue, TensorType] = field(default_factory=dict[SSAValue, TensorType])

    def localise(self) -> None:
        """Arguments, then ops: each takes its operands as it says, whole where it says nothing."""
        for argument, attrs in zip(
            self.function.body.block.args, self.function.arg_attrs or (), strict=False
        ):
            self._make_local(argument, attrs.data.get(SHARD, WHOLE))
        for op in list(self.function.body.block.ops):
            told = op.attributes.pop(SHARD, None)
            for i, want in enumerate(_states(told, "operands", len(op.operands))):
                op.operands[i] = self._as_wanted(op.operands[i], want, op)
            states = _states(told, "results", len(op.results))
            for result, state in zip(list(op.results), states, strict=True):
                self._make_local(result, state)
        self.function.update_function_type()

    def _make_local(self, value: SSAValue, state: State) -> None:
        if state == WHOLE:
            return
        kind = tensor(value.type, "a sharded value")
        if isinstance(state, SplitAttr):
            sizes, axis = list(kind.sizes), state.axis.data
            sizes[axis] = self._share(sizes[axis], self.ranks[state.over.data])
            local = TensorType.of(sizes, kind.dtype, kind.block_scale)
        else:
            local = TensorType.of(kind.sizes, "f32")  # summands are rounded once, after the sum
        held = Rewriter.replace_value_with_new_type(value, local)
        self.states[held], self.kinds[held] = state, kind

    def _share(self, size: Size, ranks: int) -> Size:
        extent = size.constant
        if extent is None or extent % ranks:
            raise PassFailedException(f"localise: {size} elements do not divide over {ranks} ranks")
        return Size.of(extent // ranks)

    def _as_wanted(self, value: SSAValue, want: State, op: Operation) -> SSAValue:
        have = self.states.get(value, WHOLE)
        if have == want:
            return value
        if want != WHOLE or not isinstance(value.owner, Operation):
            raise PassFailedException(
                f"localise: {op.name} takes an operand as {want}, which ranks hold as {have};"
                " run shard on the module as it is"
            )
        if value not in self.wholes:
            joined = self._join(value, have)
            Rewriter.insert_op(joined, InsertPoint.after(value.owner))
            self.wholes[value] = joined.results[0]
        return self.wholes[value]

    def _join(self, value: SSAValue, have: State) -> Operation:
        """The collective that makes a value whole, of the type that it had before."""
        assert isinstance(have, SplitAttr | PartialAttr)
        ranks = builtin.IntegerAttr(self.ranks[have.over.data], 64)
        properties: dict[str, Attribute] = {"over": have.over, "ranks": ranks}
        if isinstance(have, PartialAttr):
            return AllReduceOp.create(
                operands=[value], result_types=[self.kinds[value]], properties=properties
            )
        properties["axis"] = builtin.IntegerAttr(have.axis.data, 64)
        return AllGatherOp.create(
            operands=[value], result_types=[self.kinds[value]], properties=properties
        )


def _states(told: Attribute | None, key: str, count: int) -> list[State]:
    """What an op's `lostwax.shard` says of its operands or results; whole where there is none."""
    if not isinstance(told, builtin.DictionaryAttr):
        return [WHOLE] * count
    states = told.data[key]
    assert isinstance(states, builtin.ArrayAttr)
    return list(cast("builtin.ArrayAttr[Attribute]", states))  # an array's elements have no type


def _mesh(module: builtin.ModuleOp) -> dict[str, int]:
    mesh = module.attributes.get(MESH)
    if not isinstance(mesh, builtin.DictionaryAttr):
        raise PassFailedException("localise: the module has no lostwax.mesh; run shard first")
    if LOCAL in module.attributes:
        raise PassFailedException("localise: the module is one rank's already; localise it once")
    sizes = {k: v.value.data for k, v in mesh.data.items() if isinstance(v, builtin.IntegerAttr)}
    return sizes


@dataclass(frozen=True)
class LocalisePass(ModulePass):
    """Shapes of one rank, `dist.*` ops where a whole value is needed. Weight arguments keep
    `lostwax.shard`, by which a rank loads its slices.
    """

    name: ClassVar[str] = "localise"

    def apply(self, ctx: Context, op: builtin.ModuleOp) -> None:
        """Rewrite in place."""
        ranks = _mesh(op)
        for function in functions_with_weights(op):
            _Function(function, ranks).localise()
        op.attributes[LOCAL] = builtin.UnitAttr()
