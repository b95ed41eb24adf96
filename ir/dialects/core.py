"""The `core` dialect: norms, elementwise ops, views, and the call of a block kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from xdsl.dialects import builtin, func
from xdsl.ir import Attribute, Dialect
from xdsl.irdl import (
    irdl_op_definition,
    operand_def,
    prop_def,
    result_def,
    traits_def,
    var_operand_def,
    var_result_def,
)
from xdsl.traits import Pure, SymbolTable
from xdsl.utils.exceptions import VerifyException

from lostwax.ir.fields import I32, PLAIN
from lostwax.ir.op import Cost, LostwaxOp, type_bytes
from lostwax.ir.size import Size
from lostwax.ir.types import CacheType, TensorType

Int = builtin.IntegerAttr
Float = builtin.FloatAttr


def product(sizes: tuple[Size, ...]) -> Size:
    """The number of elements."""
    total = Size.of(1)
    for s in sizes:
        total = total * s
    return total


@irdl_op_definition
class AddOp(LostwaxOp):
    """a + b, summed in f32 and rounded once to the result's dtype."""

    name = "core.add"
    a = operand_def(PLAIN)
    b = operand_def(PLAIN)
    out = result_def(PLAIN)
    traits = traits_def(Pure())

    def verify_(self) -> None:
        self.require(
            self.shape(self.a) == self.shape(self.b) == self.shape(self.out),
            f"shapes differ: {self.a.type}, {self.b.type} -> {self.out.type}",
        )


@irdl_op_definition
class CastOp(LostwaxOp):
    """Round to the result's dtype (nearest even)."""

    name = "core.cast"
    x = operand_def(PLAIN)
    out = result_def(PLAIN)
    traits = traits_def(Pure())

    def verify_(self) -> None:
        self.require(self.shape(self.x) == self.shape(self.out), "a cast keeps the shape")


@irdl_op_definition
class ZerosLikeOp(LostwaxOp):
    """Zeros of the operand's type: the residual of the first block."""

    name = "core.zeros_like"
    x = operand_def(PLAIN)
    out = result_def(PLAIN)
    traits = traits_def(Pure())

    def verify_(self) -> None:
        self.require(self.x.type == self.out.type, "the result has the operand's type")


@irdl_op_definition
class RmsNormOp(LostwaxOp):
    """weight * x / sqrt(mean(x^2) + eps) over the last axis, in f32."""

    name = "core.rms_norm"
    x = operand_def(PLAIN)
    weight = operand_def(PLAIN)
    eps = prop_def(Float)
    out = result_def(PLAIN)
    traits = traits_def(Pure())

    def verify_(self) -> None:
        self.require(self.shape(self.x) == self.shape(self.out), "a norm keeps the shape")
        self.require(
            self.shape(self.weight) == self.shape(self.x)[-1:],
            f"weight {self.weight.type} does not fit the last axis of {self.x.type}",
        )

    def cost(self, env: Mapping[str, int]) -> Cost:
        """Four operations an element."""
        return Cost(self.boundary_bytes(env), 4 * product(self.shape(self.x)).at(env))


@irdl_op_definition
class LayerNormOp(LostwaxOp):
    """weight * (x - mean) / sqrt(var + eps) + bias over the last axis, in f32 (indexer k_norm)."""

    name = "core.layer_norm"
    x = operand_def(PLAIN)
    weight = operand_def(PLAIN)
    bias = operand_def(PLAIN)
    eps = prop_def(Float)
    out = result_def(PLAIN)
    traits = traits_def(Pure())

    def verify_(self) -> None:
        self.require(self.shape(self.x) == self.shape(self.out), "a norm keeps the shape")
        self.require(
            self.shape(self.weight) == self.shape(self.bias) == self.shape(self.x)[-1:],
            f"weight {self.weight.type} or bias {self.bias.type} does not fit {self.x.type}",
        )


@irdl_op_definition
class SiluMulOp(LostwaxOp):
    """silu(gate) * up, in f32, rounded once."""

    name = "core.silu_mul"
    gate = operand_def(PLAIN)
    up = operand_def(PLAIN)
    out = result_def(PLAIN)
    traits = traits_def(Pure())

    def verify_(self) -> None:
        self.require(
            self.shape(self.gate) == self.shape(self.up) == self.shape(self.out),
            f"shapes differ: {self.gate.type}, {self.up.type} -> {self.out.type}",
        )


@irdl_op_definition
class RopeOp(LostwaxOp):
    """Rotate `dim` of the last axis' elements from `offset` by YaRN-scaled positions.

    x: [T, D] or [T, H, D], positions: [T]. interleaved pairs (x0,x1),(x2,x3)…; otherwise
    (x_i, x_{i+dim/2}). factor 1 means plain RoPE. The result is in the order of x; elements outside
    offset..offset+dim are kept.
    """

    name = "core.rope"
    x = operand_def(PLAIN)
    positions = operand_def(I32)
    offset = prop_def(Int)
    dim = prop_def(Int)
    interleaved = prop_def(builtin.BoolAttr)
    theta = prop_def(Float)
    factor = prop_def(Float)
    original_len = prop_def(Int)
    beta_fast = prop_def(Float)
    beta_slow = prop_def(Float)
    magnitude = prop_def(Float)
    out = result_def(PLAIN)
    traits = traits_def(Pure())

    def verify_(self) -> None:
        x = self.shape(self.x)
        self.require(self.x.type == self.out.type, "rope keeps the type")
        self.require(self.shape(self.positions) == x[:1], "one position a row is needed")
        width, end = x[-1].constant, self.offset.value.data + self.dim.value.data
        self.require(self.dim.value.data % 2 == 0, "dim must be even")
        self.require(
            width is not None and self.offset.value.data >= 0 and end <= width,
            f"dims {self.offset.value.data}..{end} do not lie in a row of {x[-1]}",
        )


@irdl_op_definition
class ReshapeOp(LostwaxOp):
    """The same elements in another shape. A view: shares the operand's memory."""

    name = "core.reshape"
    x = operand_def(PLAIN)
    out = result_def(PLAIN)
    traits = traits_def(Pure())

    def verify_(self) -> None:
        self.require(
            product(self.shape(self.x)) == product(self.shape(self.out)),
            f"{self.x.type} and {self.out.type} hold different numbers of elements",
        )
        self.require(self.dtype(self.x) == self.dtype(self.out), "a view keeps the dtype")

    def cost(self, env: Mapping[str, int]) -> Cost:
        """A view moves nothing."""
        return Cost(0, 0)


@irdl_op_definition
class SliceOp(LostwaxOp):
    """Elements start..stop-1 of one axis. A view: shares the operand's memory."""

    name = "core.slice"
    x = operand_def(PLAIN)
    axis = prop_def(Int)
    start = prop_def(Int)
    stop = prop_def(Int)
    out = result_def(PLAIN)
    traits = traits_def(Pure())

    def verify_(self) -> None:
        x, axis = self.shape(self.x), self.axis.value.data
        start, stop = self.start.value.data, self.stop.value.data
        self.require(0 <= axis < len(x), f"axis {axis} is not one of {self.x.type}")
        extent = x[axis].constant
        self.require(
            extent is not None and 0 <= start < stop <= extent,
            f"{start}..{stop} does not lie in axis {axis} of {self.x.type}",
        )
        want = (*x[:axis], Size.of(stop - start), *x[axis + 1 :])
        self.require(self.shape(self.out) == want, f"result {self.out.type} has a wrong shape")
        self.require(self.dtype(self.x) == self.dtype(self.out), "a view keeps the dtype")

    def cost(self, env: Mapping[str, int]) -> Cost:
        """A view moves nothing."""
        return Cost(0, 0)


@irdl_op_definition
class ConcatOp(LostwaxOp):
    """The parts [T, D_i] side by side along the last axis: [T, sum of D_i]."""

    name = "core.concat"
    parts = var_operand_def(PLAIN)
    out = result_def(PLAIN)
    traits = traits_def(Pure())

    def verify_(self) -> None:
        self.require(len(self.parts) > 0, "a part is needed")
        width = Size.of(0)
        for part in self.parts:
            shape = self.shape(part)
            self.require(
                shape[:-1] == self.shape(self.out)[:-1]
                and self.dtype(part) == self.dtype(self.out),
                f"part {part.type} does not fit {self.out.type}",
            )
            width = width + shape[-1]
        self.require(self.shape(self.out)[-1] == width, f"the parts are {width} wide together")

    def cost(self, env: Mapping[str, int]) -> Cost:
        """Every element moved once."""
        return Cost(self.boundary_bytes(env), 0)


@irdl_op_definition
class EmbedOp(LostwaxOp):
    """Rows of `table` [V, D] by `tokens` [T]; token -1 gives zeros."""

    name = "core.embed"
    tokens = operand_def(I32)
    table = operand_def(PLAIN)
    out = result_def(PLAIN)
    traits = traits_def(Pure())

    def verify_(self) -> None:
        self.require(len(self.shape(self.table)) == 2, "table [V, D] is needed")
        want = (*self.shape(self.tokens), self.shape(self.table)[1])
        self.require(self.shape(self.out) == want, f"result {self.out.type} has a wrong shape")
        self.require(self.dtype(self.table) == self.dtype(self.out), "rows keep their dtype")

    def cost(self, env: Mapping[str, int]) -> Cost:
        """Reads only the chosen rows."""
        return Cost(2 * type_bytes(self.out.type, env), 0)


@irdl_op_definition
class GatherRowsOp(LostwaxOp):
    """Rows of x [T, D] by `rows` [R]; row -1 gives zeros."""

    name = "core.gather_rows"
    x = operand_def(PLAIN)
    rows = operand_def(I32)
    out = result_def(PLAIN)
    traits = traits_def(Pure())

    def verify_(self) -> None:
        want = (*self.shape(self.rows), *self.shape(self.x)[1:])
        self.require(self.shape(self.out) == want, f"result {self.out.type} has a wrong shape")
        self.require(self.dtype(self.x) == self.dtype(self.out), "rows keep their dtype")

    def cost(self, env: Mapping[str, int]) -> Cost:
        """Reads only the chosen rows."""
        return Cost(2 * type_bytes(self.out.type, env), 0)


def _listed(types: Sequence[Attribute]) -> str:
    return ", ".join(map(str, types))


def _unbound(callee: func.FuncOp) -> int:
    """How many leading arguments the caller passes: those before the first cache or weight."""
    attrs = callee.arg_attrs.data if callee.arg_attrs is not None else ()
    for i, kind in enumerate(callee.function_type.inputs.data):
        if isinstance(kind, CacheType) or (i < len(attrs) and "lostwax.weight" in attrs[i].data):
            return i
    return len(callee.function_type.inputs.data)


@irdl_op_definition
class CallOp(LostwaxOp):
    """Runs a block kind with the weights and cache planes of one layer.

    `%d, %r = core.call @moe(%d, %r, …) layer 3 weights "model.layers.3." : (…) -> (…)`: the
    callee's arguments that carry `lostwax.weight` are bound by prefix, its caches by layer number.
    """

    name = "core.call"
    arguments = var_operand_def(TensorType)
    callee = prop_def(builtin.SymbolRefAttr)
    layer = prop_def(Int)
    prefix = prop_def(builtin.StringAttr)
    res = var_result_def(TensorType)
    assembly_format = (
        "$callee `(` $arguments `)` `layer` $layer `weights` $prefix attr-dict "
        "`:` functional-type($arguments, $res)"
    )

    def verify_(self) -> None:
        callee = SymbolTable.lookup_symbol(self, self.callee)
        if not isinstance(callee, func.FuncOp):
            raise VerifyException(f"core.call: no function {self.callee}")
        inputs, outputs = callee.function_type.inputs.data, callee.function_type.outputs.data
        wanted = _unbound(callee)
        given = [a.type for a in self.arguments]
        self.require(
            list(inputs[:wanted]) == given,
            f"{self.callee} wants ({_listed(inputs[:wanted])}), got ({_listed(given)})",
        )
        tensors = [o for o in outputs if not isinstance(o, CacheType)]
        self.require(
            tensors == [r.type for r in self.res], f"{self.callee} gives ({_listed(tensors)})"
        )

    def cost(self, env: Mapping[str, int]) -> Cost:
        """Counted in the callee."""
        return Cost(0, 0)


CORE = Dialect(
    "core",
    [
        AddOp, CastOp, ZerosLikeOp, RmsNormOp, LayerNormOp, SiluMulOp, RopeOp,
        ReshapeOp, SliceOp, ConcatOp, EmbedOp, GatherRowsOp, CallOp,
    ],
)  # fmt: skip
