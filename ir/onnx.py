"""A specialised module as an ONNX model: a function an op kind, block kinds inlined in each layer.

Knows no file: weights are initialisers in external data; their places are planned here, their bytes
are the caller's to write.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper
from xdsl.dialects import builtin, func
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.irdl import IRDLOperation
from xdsl.traits import SymbolTable

from lostwax.ir.contract.dtypes import DTYPE_BYTES
from lostwax.ir.contract.scale_layout import ScaleLayout, scale_shape
from lostwax.ir.decompose.body import Function
from lostwax.ir.decompose.cache_bytes import shape_of
from lostwax.ir.decompose.function import decompose, dtypes_of, operands_of
from lostwax.ir.dialects.core import CallOp
from lostwax.ir.onnx_function import (
    ELEMENTS,
    IR_VERSION,
    OPS,
    OPSET,
    call_node,
    function_proto,
    opset_of,
)
from lostwax.ir.types import CacheType, TensorType

ALIGNMENT = 4096  # of external data: ONNX asks for it so that files can be mapped


class NotExportable(ValueError):
    """A module has no ONNX form; the message says why."""


@dataclass(frozen=True, slots=True)
class PlacedWeight:
    """Bytes offset .. offset + num_bytes of the external data: a weight, or its block scales.

    `values_dtype` and `values_scale` are the weight's, whichever of the two this is.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    scale: bool
    values_dtype: str
    values_scale: ScaleLayout | None
    offset: int

    @property
    def num_bytes(self) -> int:
        """Bytes of the tensor."""
        return prod(self.shape) * DTYPE_BYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class OnnxModel:
    """A model whose initialisers are `weights`: bytes of one file, which the caller writes."""

    proto: ModelProto
    weights: tuple[PlacedWeight, ...]


@dataclass
class _Functions:
    """Functions of the ops met so far. Equal bodies are one function.

    onnxruntime 1.32 ignores a function's `overload`, so a second body of an op gets a name of its
    own: `core_add`, `core_add_2`, …
    """

    compute: str
    found: dict[str, list[Function]] = field(default_factory=dict[str, list[Function]])
    keys: dict[bytes, str] = field(default_factory=dict[bytes, str])

    def name_of(self, op: IRDLOperation) -> str:
        """The name of the op's function, which is added if it is new."""
        function = decompose(op, self.compute)
        proto = function_proto(function, OPSET)
        proto.doc_string = ""
        key = proto.SerializeToString(deterministic=True)
        if key not in self.keys:
            bodies = self.found.setdefault(function.name, [])
            bodies.append(function)
            count = len(bodies)
            self.keys[key] = function.name if count == 1 else f"{function.name}_{count}"
        return self.keys[key]

    def all(self) -> dict[str, Function]:
        """Every function by its name, those of one op together."""
        return {
            f.name if i == 0 else f"{f.name}_{i + 1}": f
            for bodies in self.found.values()
            for i, f in enumerate(bodies)
        }


Names = dict[SSAValue, tuple[str, ...]]
"""ONNX names of a value: two where it has block scales."""


def _string(attributes: Attribute | None, name: str) -> str | None:
    found = attributes.data.get(name) if isinstance(attributes, builtin.DictionaryAttr) else None
    return found.data if isinstance(found, builtin.StringAttr) else None


def _argument_attribute(function: func.FuncOp, index: int, name: str) -> str | None:
    return _string(function.arg_attrs.data[index], name) if function.arg_attrs else None


def _callee(op: CallOp) -> func.FuncOp:
    found = SymbolTable.lookup_symbol(op, op.callee)
    if not isinstance(found, func.FuncOp):
        raise NotExportable(f"core.call: no function {op.callee}")
    return found


@dataclass
class _Step:
    """The graph of one step function in the making.

    Block kinds are inlined: as functions of their own, onnxruntime 1.32 refuses their fp8 inputs.
    """

    functions: _Functions
    nodes: list[NodeProto] = field(default_factory=list[NodeProto])
    caches: dict[tuple[str, int], CacheType] = field(
        default_factory=dict[tuple[str, int], CacheType]
    )
    current: dict[tuple[str, int], str] = field(default_factory=dict[tuple[str, int], str])
    weights: dict[str, PlacedWeight] = field(default_factory=dict[str, PlacedWeight])
    num_bytes: int = 0
    num_values: int = 0

    def run(self, function: func.FuncOp, names: Names, place: str) -> tuple[SSAValue, ...]:
        """Add the function's ops, its arguments bound in `names`; the values that it returns."""
        *ops, end = function.body.block.ops
        for op in ops:
            if isinstance(op, CallOp):
                self._call(op, names)
            else:
                self._op(op, names, place)
        return tuple(end.operands)

    def _op(self, op: Operation, names: Names, place: str) -> None:
        if not isinstance(op, IRDLOperation):
            raise NotExportable(f"{op.name} is not registered; load its dialect before parsing")
        for result in op.results:
            name = f"v{self.num_values}"
            names[result] = (name, f"{name}:scale")[: len(dtypes_of(result.type))]
            self.num_values += 1
        inputs = [n for _, value in operands_of(op) for n in names[value]]
        outputs = [n for r in op.results for n in names[r]]
        node = call_node(op, self.functions.name_of(op), inputs, outputs)
        node.name = f"{place}{op.name}.{len(self.nodes)}"
        self.nodes.append(node)

    def _call(self, op: CallOp, names: Names) -> None:
        callee, layer = _callee(op), op.layer.value.data
        inner: Names = {}
        for index, argument in enumerate(callee.body.block.args):
            if index < len(op.arguments):
                inner[argument] = names[op.arguments[index]]
            elif isinstance(argument.type, CacheType):
                inner[argument] = (self._cache(argument.type, layer),)
            else:
                inner[argument] = self._weight(_weight_name(op, callee, index), argument.type)
        results = iter(op.res)
        for value in self.run(callee, inner, f"{op.prefix.data}{callee.sym_name.data}/"):
            if isinstance(value.type, CacheType):
                self.current[value.type.plane.data, layer] = inner[value][0]
            else:
                names[next(results)] = inner[value]

    def _cache(self, kind: CacheType, layer: int) -> str:
        """What holds a layer's plane now: the input, or what an append made of it."""
        key = (kind.plane.data, layer)
        self.caches.setdefault(key, kind)
        return self.current.setdefault(key, f"past.{key[0]}.{layer}")

    def _weight(self, name: str, kind: Attribute) -> tuple[str, ...]:
        """Initialisers of a weight, each placed once."""
        if not isinstance(kind, TensorType):
            raise NotExportable(f"weight {name} is a {kind}, not a tensor")
        shape = kind.at({})
        layout = None if kind.block_scale is None else kind.block_scale.layout
        values = (kind.dtype_name, layout)
        found = (self._place(name, kind.dtype_name, shape, False, values),)
        if layout is None:
            return found
        counts = scale_shape(layout, shape)
        return (*found, self._place(name, layout.dtype, counts, True, values))

    def _place(
        self,
        name: str,
        dtype: str,
        shape: tuple[int, ...],
        scale: bool,
        values: tuple[str, ScaleLayout | None],
    ) -> str:
        key = f"{name}:scale" if scale else name
        if key not in self.weights:
            offset = -(-self.num_bytes // ALIGNMENT) * ALIGNMENT
            placed = self.weights[key] = PlacedWeight(name, dtype, shape, scale, *values, offset)
            self.num_bytes = offset + placed.num_bytes
        return key


def _weight_name(op: CallOp, callee: func.FuncOp, index: int) -> str:
    relative = _argument_attribute(callee, index, "lostwax.weight")
    if relative is None:
        raise NotExportable(
            f"argument {index} of @{callee.sym_name.data} is neither passed, nor a cache, nor a"
            " weight"
        )
    return op.prefix.data + relative


def _initializer(name: str, placed: PlacedWeight, location: str) -> TensorProto:
    """A weight as a reference into the external data."""
    proto = TensorProto(name=name, data_type=ELEMENTS[placed.dtype], dims=placed.shape)
    proto.data_location = TensorProto.EXTERNAL
    where = {"location": location, "offset": placed.offset, "length": placed.num_bytes}
    for key, value in where.items():
        proto.external_data.add(key=key, value=str(value))
    return proto


def _value_info(name: str, kind: Attribute) -> onnx.ValueInfoProto:
    if isinstance(kind, CacheType):
        sizes: Sequence[Any] = (kind.pages.data, *shape_of(kind))
    elif isinstance(kind, TensorType):
        sizes = kind.sizes
    else:
        raise NotExportable(f"{name} is a {kind}, which has no ONNX form")
    dims = [s if isinstance(s, int) else s.constant or str(s) for s in sizes]
    return helper.make_tensor_value_info(name, ELEMENTS[dtypes_of(kind)[0]], dims)


def _output_name(value: SSAValue, index: int) -> str:
    """What programs call a result: the result's name in the op that makes it."""
    owner = value.owner
    if not isinstance(owner, IRDLOperation):
        return f"output{index}"
    position = [r is value for r in owner.results].index(True)
    if not isinstance(owner, CallOp):
        return [n for n, _ in owner.get_irdl_definition().results][position]
    end = _callee(owner).body.block.last_op
    assert end is not None  # functions end in a return
    tensors = [v for v in end.operands if not isinstance(v.type, CacheType)]
    return _output_name(tensors[position], index)


def export_onnx(
    module: builtin.ModuleOp,
    entry: str,
    location: str,
    *,
    compute: str = "f32",
    metadata: Mapping[str, str] | None = None,
) -> OnnxModel:
    """The step function `entry` of a specialised module as a model.

    Its inputs are the step inputs that it uses and every layer's cache planes as
    `past.PLANE.LAYER`, its outputs the results and `present.PLANE.LAYER`; other state that outlives
    a step is `past.STATE` and `present.STATE`. Weights are external data in the file `location`
    beside the model. Raises NotExportable and NoDecomposition.
    """
    step = SymbolTable.lookup_symbol(module, entry)
    if not isinstance(step, func.FuncOp):
        raise NotExportable(f"the module has no step function @{entry}")
    made, names = _Step(_Functions(compute)), Names()
    inputs: list[onnx.ValueInfoProto] = []
    for index, argument in enumerate(step.body.block.args):
        state = _argument_attribute(step, index, "lostwax.state")
        given = _argument_attribute(step, index, "lostwax.input") or argument.name_hint
        names[argument] = (f"past.{state}" if state else given or f"input{index}",)
        if argument.uses:
            inputs.append(_value_info(names[argument][0], argument.type))
    returned = made.run(step, names, "")
    results: list[tuple[str, Attribute, str]] = []
    for index, value in enumerate(returned):
        state = _string(step.res_attrs.data[index], "lostwax.state") if step.res_attrs else None
        name = f"present.{state}" if state else _output_name(value, index)
        results.append((name, value.type, names[value][0]))
    for (plane, layer), kind in made.caches.items():
        inputs.append(_value_info(f"past.{plane}.{layer}", kind))
        results.append((f"present.{plane}.{layer}", kind, made.current[plane, layer]))
    for name, _, value in results:  # a result may be an input, or returned twice
        made.nodes.append(helper.make_node("Identity", [value], [name], name=f"{name}.output"))
    graph = helper.make_graph(
        made.nodes,
        entry,
        inputs,
        [_value_info(name, kind) for name, kind, _ in results],
        [_initializer(name, placed, location) for name, placed in made.weights.items()],
    )
    functions = made.functions.all()
    opset = opset_of(functions.values())
    proto = helper.make_model(
        graph,
        functions=[function_proto(f, opset, name) for name, f in functions.items()],
        opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid(OPS, 1)],
        ir_version=IR_VERSION,
        producer_name="lostwax",
    )
    helper.set_model_props(proto, dict(sorted((metadata or {}).items())))
    return OnnxModel(proto, tuple(made.weights.values()))
