"""Turns one exported torch program into one IR function. Knows FX, not the model."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Node
from xdsl.context import Context
from xdsl.dialects import builtin, func
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue
from xdsl.irdl import IRDLOperation

from lostwax.ir.dialects.core import ReshapeOp, SliceOp
from lostwax.ir.size import Size
from lostwax.ir.types import CacheType, TensorType

DTYPE_NAMES = {torch.bfloat16: "bf16", torch.float32: "f32", torch.int32: "i32"}


class ImportRefused(NotImplementedError):
    """The exported program has a form that the IR has no op for; the message names it."""


@dataclass(frozen=True, slots=True)
class Argument:
    """What the importer must know of one input of the block.

    `dims` names the dynamic axes, `attrs` become the argument's attributes, `cache` replaces the
    tensor type of a cache operand.
    """

    dims: Mapping[int, str]
    attrs: Mapping[str, str]
    cache: CacheType | None = None


def import_block(
    ctx: Context,
    name: str,
    program: ExportedProgram,
    arguments: Mapping[str, Argument],
    weight_attrs: Mapping[str, Mapping[str, Attribute]],
    last_result: Mapping[str, str] | None = None,
) -> func.FuncOp:
    """The function of a block: inputs in the order of `arguments`, then weights.

    Written caches become results that carry `lostwax.alias`, the number of their argument;
    `last_result` are attributes of the last result before them.
    """
    return _Import(ctx, program, arguments, weight_attrs).function(name, last_result or {})


class _Import:
    def __init__(
        self,
        ctx: Context,
        program: ExportedProgram,
        arguments: Mapping[str, Argument],
        weight_attrs: Mapping[str, Mapping[str, Attribute]],
    ) -> None:
        self.ctx, self.arguments, self.weight_attrs = ctx, arguments, weight_attrs
        self.nodes = list(program.graph.nodes)
        self.output: Sequence[Node] = program.graph.output_node().args[0]  # pyright: ignore
        self.weights: dict[str, str] = {}
        for spec in program.graph_signature.input_specs:
            if spec.target is not None:
                self.weights[spec.arg.name] = spec.target
        self.symbols = self._symbols()
        self.env: dict[Node, SSAValue | list[SSAValue]] = {}
        self.written: dict[Node, SSAValue] = {}
        self.block = Block()

    def function(self, name: str, last_result: Mapping[str, str]) -> func.FuncOp:
        """Import everything."""
        inputs, arg_attrs = self._placeholders()
        for node in self.nodes:
            if node.op == "call_function":
                self._call(node)
            elif node.op not in ("placeholder", "output"):
                raise ImportRefused(
                    f"{node.op} node {node.name}: a constant or submodule was baked into the block;"
                    " make it an input, a parameter or an op attribute"
                )
        results = [self._value(node) for node in self.output]
        res_attrs = [builtin.DictionaryAttr({}) for _ in results]
        texts = {k: builtin.StringAttr(v) for k, v in last_result.items()}
        res_attrs[-1] = builtin.DictionaryAttr(texts)
        for node, value in self.written.items():
            results.append(value)
            alias = builtin.IntegerAttr(inputs.index(node), 64)
            res_attrs.append(builtin.DictionaryAttr({"lostwax.alias": alias}))
        self.block.add_op(func.ReturnOp(*results))
        return func.FuncOp(
            name,
            ([a.type for a in self.block.args], [r.type for r in results]),
            Region(self.block),
            arg_attrs=builtin.ArrayAttr(arg_attrs),
            res_attrs=builtin.ArrayAttr(res_attrs) if self.written or last_result else None,
        )

    def _placeholders(self) -> tuple[list[Node], list[builtin.DictionaryAttr]]:
        inputs = [n for n in self.nodes if n.op == "placeholder"]
        inputs.sort(key=lambda n: n.name in self.weights)  # stable: step inputs first, then weights
        attrs: list[builtin.DictionaryAttr] = []
        for node in inputs:
            weight = self.weights.get(node.name)
            if weight is None:
                argument = self.arguments[node.name]
                kind = argument.cache or self._type(node.meta["val"])
                given: Mapping[str, Attribute] = {
                    k: builtin.StringAttr(v) for k, v in argument.attrs.items()
                }
                hint = node.name
            else:
                kind = self._type(node.meta["val"])
                # FX mangles parameter names; the signature's target is exact.
                given, hint = self.weight_attrs[weight], weight.replace(".", "_")
            value = self.block.insert_arg(kind, len(self.block.args))
            value.name_hint = hint
            self.env[node] = value
            attrs.append(builtin.DictionaryAttr(dict(given)))
        return inputs, attrs

    def _call(self, node: Node) -> None:
        target: Any = node.target  # an OpOverload or a builtin function: FX types it as neither
        if target is operator.getitem:
            source, index = node.args
            values = self.env[source]  # pyright: ignore[reportArgumentType]
            assert isinstance(values, list)
            assert isinstance(index, int)
            self.env[node] = values[index]
            return
        name = str(target)
        if name.startswith("lostwax."):
            self._lostwax_op(node, target._schema)
        elif name in ("aten.view.default", "aten.reshape.default"):
            out = self._type(node.meta["val"])
            self.env[node] = self._add(ReshapeOp(operands=[self._plain(node)], result_types=[out]))
        elif name == "aten.slice.Tensor":
            self.env[node] = self._slice(node)
        elif name == "aten.split_with_sizes.default":
            self.env[node] = self._split(node)
        else:
            raise ImportRefused(
                f"{name} at {node.name}: write it as a lostwax op (frontend/ops.py), or teach"
                " frontend/importer.py this aten form"
            )

    def _lostwax_op(self, node: Node, schema: Any) -> None:
        family, verb = schema.name.removeprefix("lostwax::").removesuffix("_").split("_", 1)
        op_class = self.ctx.get_optional_op(f"{family}.{verb}")
        if op_class is None or not issubclass(op_class, IRDLOperation):
            raise ImportRefused(f"{schema.name} at {node.name}: the IR has no op {family}.{verb}")
        arguments = schema.arguments
        given: dict[str, Any] = {
            a.name: node.args[i] if i < len(node.args) else node.kwargs[a.name]
            for i, a in enumerate(arguments)
        }
        written = [given[a.name] for a in arguments if a.alias_info and a.alias_info.is_write]
        operands: list[SSAValue] = []
        for field, _ in op_class.get_irdl_definition().operands:
            value = given.pop(field)
            operands.extend(self._value(part) for part in _listed(value))
        given.pop("dtype", None)  # the result's type carries it
        meta = node.meta.get("val")
        values = _listed(meta) if schema.returns else []
        op = op_class.create(
            operands=operands,
            properties={k: _attribute(v) for k, v in given.items()},
            result_types=[
                *(self._type(v) for v in values),
                *(self._value(w).type for w in written),
            ],
        )
        self.block.add_op(op)
        self.env[node] = list(op.results) if isinstance(meta, (list, tuple)) else op.results[0]
        for operand, result in zip(written, op.results[len(values) :], strict=True):
            if operand.op != "placeholder":
                raise ImportRefused(f"{node.name} writes {operand.name}, no argument of the block")
            self.env[operand] = self.written[operand] = result  # later reads see the new value

    def _slice(self, node: Node) -> SSAValue:
        x = self._plain(node)
        axis, start, stop, step = (*node.args[1:], *(0, 0, None, 1)[len(node.args) - 1 :])
        if step != 1 or not all(isinstance(v, int) for v in (axis, start, stop)):
            raise ImportRefused(f"slice {node.name}: only constant bounds and step 1 are imported")
        return self._add_slice(x, int(axis), int(start), int(stop))  # pyright: ignore

    def _split(self, node: Node) -> list[SSAValue]:
        x = self._plain(node)
        sizes: Any = node.args[1]
        axis: Any = node.args[2] if len(node.args) > 2 else 0
        parts: list[SSAValue] = []
        start = 0
        for width in sizes:
            parts.append(self._add_slice(x, axis, start, start + width))
            start += width
        return parts

    def _add_slice(self, x: SSAValue, axis: int, start: int, stop: int) -> SSAValue:
        assert isinstance(x.type, TensorType)
        sizes = list(x.type.sizes)
        axis %= len(sizes)
        extent = sizes[axis].constant
        if extent is None:
            raise ImportRefused(f"slice of the dynamic axis {axis} of {x.type}: use gather_rows")
        stop = min(stop, extent)  # torch writes an omitted end as the largest integer
        if start == 0 and stop == extent:
            return x
        sizes[axis] = Size.of(stop - start)
        names = {"axis": axis, "start": start, "stop": stop}
        op = SliceOp.create(
            operands=[x],
            properties={k: builtin.IntegerAttr(v, 64) for k, v in names.items()},
            result_types=[TensorType.of(sizes, x.type.dtype)],
        )
        return self._add(op)

    def _add(self, op: Operation) -> SSAValue:
        self.block.add_op(op)
        return op.results[0]

    def _value(self, node: Node) -> SSAValue:
        value = self.env[node]
        assert isinstance(value, SSAValue)
        return value

    def _plain(self, node: Node) -> SSAValue:
        """The viewed tensor; views of caches would mean other things before and after a write."""
        x = self._value(node.args[0])  # pyright: ignore[reportArgumentType]
        if not isinstance(x.type, TensorType):
            raise ImportRefused(f"{node.target} at {node.name} views a cache; pass it whole")
        return x

    def _type(self, value: Any) -> TensorType:
        return TensorType.of([self._size(s) for s in value.shape], DTYPE_NAMES[value.dtype])

    def _size(self, dim: Any) -> Size:
        """A dimension of torch (int, SymInt or sympy expression) in our names."""
        expr = dim if isinstance(dim, int) else dim.node.expr if hasattr(dim, "node") else dim
        if isinstance(expr, int) or expr.is_Integer:
            return Size.of(int(expr))
        if expr.is_Symbol:
            return Size.of(self.symbols[expr])
        if not (expr.is_Add or expr.is_Mul):
            raise ImportRefused(f"dimension {expr}: only sums and products of inputs' dimensions")
        first, *rest = (self._size(a) for a in expr.args)
        for part in rest:
            first = first + part if expr.is_Add else first * part
        return first

    def _symbols(self) -> dict[Any, str]:
        """torch's `s23` by our name, from the inputs whose axis is exactly one symbol."""
        names: dict[Any, str] = {}
        for node in self.nodes:
            argument = self.arguments.get(node.name)
            if node.op != "placeholder" or argument is None or node.name in self.weights:
                continue
            for axis, name in argument.dims.items():
                expr = node.meta["val"].shape[axis].node.expr
                if expr.is_Symbol and names.setdefault(expr, name) != name:
                    raise ImportRefused(f"dimensions {names[expr]} and {name} were made equal")
        return names


def _listed(value: Any) -> list[Any]:
    """FX writes one tensor as itself, several as a list or tuple."""
    return [*value] if isinstance(value, (list, tuple)) else [value]


def _attribute(value: Any) -> Attribute:
    if isinstance(value, bool):  # before int: a bool is one
        return builtin.BoolAttr.from_bool(value)
    if isinstance(value, int):
        return builtin.IntegerAttr(value, 64)
    if isinstance(value, float):
        return builtin.FloatAttr(value, builtin.f64)
    raise ImportRefused(f"argument {value!r}: only bool, int and float become attributes")
