"""shard: which axis of which weight is split over ranks, and what follows for every value.

Annotates only (`lostwax.shard`); `localise` makes the shapes local. Decides by ops and wiring,
never by weight names. The indexer, the latent projections and the router stay whole: every rank
needs all index heads to choose the same positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from xdsl.context import Context
from xdsl.dialects import builtin, func
from xdsl.ir import Attribute, BlockArgument, Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import PassFailedException

from lostwax.ir.dialects.core import (
    AddOp,
    CallOp,
    ReshapeOp,
    RopeOp,
    SiluMulOp,
    SliceOp,
    product,
)
from lostwax.ir.dialects.dist import MESH, SHARD, PartialAttr, SplitAttr
from lostwax.ir.dialects.mla import AttendOp
from lostwax.ir.dialects.moe import ExpertsOp
from lostwax.ir.dialects.quant import LinearOp, QuantiseOp
from lostwax.ir.dialects.sample import (
    BiasOp,
    LogprobOp,
    MaskOp,
    NucleusOp,
    PenaliseOp,
    PickOp,
    ScoreOp,
)
from lostwax.ir.size import Size
from lostwax.ir.types import TensorType, tensor

AXIS = "tp"
"""The mesh axis of tensor parallelism, the only one so far."""
WHOLE = builtin.UnitAttr()

State = Attribute
"""How ranks hold a value: SplitAttr, PartialAttr, or WHOLE."""
PARTIAL = PartialAttr(builtin.StringAttr(AXIS))


class ShardRefused(PassFailedException):
    """The module does not divide over the ranks; the message says what and what to choose."""


def split(axis: int) -> SplitAttr:
    """A slice of `axis` a rank."""
    return SplitAttr(builtin.StringAttr(AXIS), builtin.IntAttr(axis))


def _split_axis(state: State) -> int | None:
    return state.axis.data if isinstance(state, SplitAttr) else None


Taken = tuple[list[State], State]
"""How an op takes its operands, and how it gives its result."""


@dataclass
class _Function:
    """Decides for one function, in the order of its ops."""

    function: func.FuncOp
    ranks: int
    states: dict[SSAValue, State] = field(default_factory=dict[SSAValue, State])

    def annotate(self) -> None:
        """Mark weight arguments and ops; what stays whole is left as it is."""
        for op in self.function.body.block.ops:
            taken = self._take(op)
            if taken is None:
                continue
            operands, result = taken
            self.states[op.results[0]] = result
            op.attributes[SHARD] = builtin.DictionaryAttr(
                {"operands": builtin.ArrayAttr(operands), "results": builtin.ArrayAttr([result])}
            )
        attrs = list(self.function.arg_attrs.data if self.function.arg_attrs else ())
        for argument in self.function.body.block.args:
            if argument in self.states:
                held = {**attrs[argument.index].data, SHARD: self.states[argument]}
                attrs[argument.index] = builtin.DictionaryAttr(held)
        if attrs:
            self.function.arg_attrs = builtin.ArrayAttr(attrs)

    def _state(self, value: SSAValue) -> State:
        return self.states.get(value, WHOLE)

    def _take(self, op: Operation) -> Taken | None:
        """None: the op takes everything whole and gives it whole."""
        match op:
            case LinearOp():
                return self._linear(op)
            case AttendOp():
                return self._attend(op)
            case ExpertsOp():
                return self._experts(op)
            case QuantiseOp():
                return self._quantise(op)
            case AddOp() | SiluMulOp() | RopeOp() | ReshapeOp() | SliceOp():
                state = self._through(op)
                if state is None:
                    return None
                same = op.operands[:1] if isinstance(op, RopeOp) else op.operands
                return [state if v in same else WHOLE for v in op.operands], self._after(op, state)
            case _:
                return None

    def _linear(self, op: LinearOp) -> Taken | None:
        if not self._is_weight(op.weight):
            return None
        if self._state(op.x) == split(1):  # a row of the product needs a column of every rank
            return [split(1), self._hold(op.weight, 1)], PARTIAL
        if feeds_heads(op.out) or self._feeds_pick(op):
            return [WHOLE, self._hold(op.weight, 0)], split(1)
        return None

    def _feeds_pick(self, op: LinearOp) -> bool:
        """Whether the product is logits over a vocabulary that divides; others stay whole."""
        rows = tensor(op.weight.type, "logits").sizes[0].constant
        ends = PickOp | PenaliseOp | BiasOp | MaskOp | NucleusOp | LogprobOp | ScoreOp
        picks = all(isinstance(u.operation, ends) for u in op.out.uses)
        return picks and bool(op.out.uses) and rows is not None and rows % self.ranks == 0

    def _attend(self, op: AttendOp) -> Taken | None:
        by_heads = self._state(op.q_nope) == self._state(op.q_pe) == split(1)
        if not (by_heads and self._is_weight(op.kv_b)):
            return None
        heads = tensor(op.q_nope.type, "heads").sizes[1].constant
        if heads is None or heads % self.ranks:
            raise ShardRefused(
                f"shard: the {heads} heads of mla.attend in @{self.function.sym_name.data} do not"
                f" divide over {AXIS}={self.ranks}; choose a {AXIS} that divides them"
            )
        local = {op.q_nope: split(1), op.q_pe: split(1), op.kv_b: self._hold(op.kv_b, 0)}
        return [local.get(v, WHOLE) for v in op.operands], split(1)

    def _experts(self, op: ExpertsOp) -> Taken | None:
        weights = {op.gate: 1, op.up: 1, op.down: 2}  # every rank has a slice of every expert
        if not all(self._is_weight(w) for w in weights):
            return None
        self._require_blocks(tensor(op.x.type, "x"), tensor(op.gate.type, "gate").sizes[1])
        local = {w: self._hold(w, axis) for w, axis in weights.items()}
        return [local.get(v, WHOLE) for v in op.operands], PARTIAL

    def _quantise(self, op: QuantiseOp) -> Taken | None:
        if self._state(op.x) != split(1):
            return None
        self._require_blocks(tensor(op.out.type, "quantised"), tensor(op.x.type, "x").sizes[1])
        return [split(1)], split(1)

    def _require_blocks(self, quantised: TensorType, size: Size) -> None:
        """Slices of an activation hold whole blocks, or their scales would be others.

        In int8 a row has one: that of a slice is no coarser than that of the whole row.
        """
        extent, scale = size.constant or 0, quantised.block_scale
        if scale is None or quantised.dtype_name == "si8":
            return
        if extent % (self.ranks * scale.cols.data):
            raise ShardRefused(
                f"shard: {AXIS}={self.ranks} cuts the blocks of {scale.cols.data} in which"
                f" @{self.function.sym_name.data} quantises {extent} activations; choose a smaller"
                f" {AXIS}, or activations=model"
            )

    def _through(self, op: Operation) -> State | None:
        """The common state of an elementwise op's or a view's operands, where it passes on."""
        states = [self._state(op.operands[0])]
        if isinstance(op, AddOp | SiluMulOp):
            states.append(self._state(op.operands[1]))
        state = states[0]
        if any(s != state for s in states) or state == WHOLE:
            return None
        if state == PARTIAL:  # sums commute with sums and with nothing else here
            return state if isinstance(op, AddOp) else None
        axis, rank = _split_axis(state), len(tensor(op.operands[0].type, op.name).sizes)
        blocked = (
            (isinstance(op, RopeOp) and axis == rank - 1)
            or (isinstance(op, SliceOp) and axis == op.axis.value.data)
            or (isinstance(op, ReshapeOp) and self._reshaped(op, state) is None)
        )
        return None if blocked else state

    def _after(self, op: Operation, state: State) -> State:
        if not isinstance(op, ReshapeOp):
            return state
        reshaped = self._reshaped(op, state)
        assert reshaped is not None
        return reshaped

    def _reshaped(self, op: ReshapeOp, state: State) -> State | None:
        """Where the split axis goes: to the axis with as many elements before it."""
        axis = _split_axis(state)
        before = tensor(op.x.type, op.name).sizes[:axis]
        sizes = tensor(op.out.type, op.name).sizes
        for i, size in enumerate(sizes):
            extent = size.constant
            same = product(sizes[:i]) == product(before)
            if same and extent is not None and extent > 1:
                return split(i) if extent % self.ranks == 0 else self._indivisible(op, extent)
        return None

    def _indivisible(self, op: ReshapeOp, extent: int) -> None:
        raise ShardRefused(
            f"shard: the {extent} heads of {op.out.type} in @{self.function.sym_name.data} do not"
            f" divide over {AXIS}={self.ranks}; choose a {AXIS} that divides them"
        )

    def _name(self, value: SSAValue) -> str | None:
        attrs = self.function.arg_attrs
        if not isinstance(value, BlockArgument) or attrs is None:
            return None
        name = attrs.data[value.index].data.get("lostwax.weight")
        return name.data if isinstance(name, builtin.StringAttr) else None

    def _is_weight(self, value: SSAValue) -> bool:
        """Whether a weight argument is this op's alone, so that it can be held in slices."""
        return self._name(value) is not None and value.has_one_use()

    def _hold(self, weight: SSAValue, axis: int) -> SplitAttr:
        """Split a weight's axis. Slices end where scale blocks end, or lie in one block."""
        kind = tensor(weight.type, "weight")
        where = f"axis {axis} of weight {self._name(weight)!r} of @{self.function.sym_name.data}"
        extent = kind.sizes[axis].constant
        if extent is None or extent % self.ranks:
            raise ShardRefused(
                f"shard: {where} has {extent} elements, which do not divide over"
                f" {AXIS}={self.ranks}; choose a {AXIS} that divides them"
            )
        local, scale = extent // self.ranks, kind.block_scale
        if scale is not None:
            block = {1: scale.cols.data, 2: scale.rows.data}[len(kind.sizes) - axis]
            if local % block and block % local:
                raise ShardRefused(
                    f"shard: {where} has slices of {local} elements, which cut its scale blocks of"
                    f" {block}; choose a smaller {AXIS}, or weights=dequantised"
                )
        self.states[weight] = split(axis)
        return split(axis)


def feeds_heads(value: SSAValue) -> bool:
    """Whether columns of a product go, each by itself, to attention heads or a gated product."""
    return bool(value.uses) and all(_by_column(u.operation, value) for u in value.uses)


def _by_column(user: Operation, value: SSAValue) -> bool:
    match user:
        case ReshapeOp() | SliceOp() | RopeOp():
            return feeds_heads(user.results[0])
        case AttendOp():
            return value in (user.q_nope, user.q_pe)
        case SiluMulOp():
            users = [u.operation for u in user.out.uses]
            return all(isinstance(u, LinearOp | QuantiseOp) for u in users)
        case _:
            return False


def _check_shared(module: builtin.ModuleOp) -> None:
    """Block kinds that share a stored weight must split it alike."""
    functions = {f.sym_name.data: f for f in module.ops if isinstance(f, func.FuncOp)}
    held: dict[str, Attribute] = {}
    for call in (op for f in functions.values() for op in f.walk() if isinstance(op, CallOp)):
        callee = functions[call.callee.root_reference.data]
        for attrs in callee.arg_attrs.data if callee.arg_attrs else ():
            name = attrs.data.get("lostwax.weight")
            if isinstance(name, builtin.StringAttr):
                full, state = call.prefix.data + name.data, attrs.data.get(SHARD, WHOLE)
                if held.setdefault(full, state) != state:
                    raise ShardRefused(
                        f"shard: weight {full!r} is split in one block kind and not alike in"
                        f" @{callee.sym_name.data}; block kinds that share weights must use them"
                        " alike"
                    )


def functions_with_weights(module: builtin.ModuleOp) -> Sequence[func.FuncOp]:
    """The block kinds: functions with a body that call none."""
    found = [f for f in module.ops if isinstance(f, func.FuncOp) and not f.is_declaration]
    return [f for f in found if not any(isinstance(o, CallOp) for o in f.body.block.ops)]


@dataclass(frozen=True)
class ShardPass(ModulePass):
    """Splits heads, gated products, experts' inner axis and the vocabulary over `tp` ranks."""

    name: ClassVar[str] = "shard"
    tp: int

    def __post_init__(self) -> None:
        if self.tp < 2:
            raise ValueError(f"shard: tp={self.tp} splits nothing; leave the pass out")

    def apply(self, ctx: Context, op: builtin.ModuleOp) -> None:
        """Annotate in place."""
        if MESH in op.attributes:
            raise ShardRefused("shard: the module is sharded already; shard it once")
        for function in functions_with_weights(op):
            _Function(function, self.tp).annotate()
        _check_shared(op)
        op.attributes[MESH] = builtin.DictionaryAttr({AXIS: builtin.IntegerAttr(self.tp, 64)})
