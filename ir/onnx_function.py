"""An op's function as ONNX protos, and the node that calls it. Knows no module and no weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from onnx import (
    AttributeProto,
    FunctionProto,
    GraphProto,
    NodeProto,
    TensorProto,
    helper,
    numpy_helper,
)
from xdsl.irdl import IRDLOperation

from lostwax.ir.decompose.body import Attr, Function, Graph, Node, Ref
from lostwax.ir.decompose.function import constants_of

OPS = "ai.lostwax"
"""Domain of the ops."""
OPSET = 21  # the first whose casts, reshapes and scans take every fp8 type
BITS_OPSET = 26  # the first with BitCast, which the bytes of scaled caches need
IR_VERSION = 10

ELEMENTS: dict[str, int] = {
    "f64": TensorProto.DOUBLE,
    "f32": TensorProto.FLOAT,
    "f16": TensorProto.FLOAT16,
    "bf16": TensorProto.BFLOAT16,
    "i64": TensorProto.INT64,
    "i32": TensorProto.INT32,
    "u8": TensorProto.UINT8,
    "si8": TensorProto.INT8,
    "bool": TensorProto.BOOL,
    "f8E4M3FN": TensorProto.FLOAT8E4M3FN,
    "f8E4M3FNUZ": TensorProto.FLOAT8E4M3FNUZ,
}
"""ONNX's element types by the name that types use."""


def _graph_proto(graph: Graph, name: str) -> GraphProto:
    return helper.make_graph(
        [_node_proto(n) for n in graph.nodes],
        name,
        [helper.make_tensor_value_info(n, ELEMENTS[d], None) for n, d in graph.inputs],
        [helper.make_tensor_value_info(n, ELEMENTS[d], [None] * a) for n, d, a in graph.outputs],
    )


def _attribute(name: str, value: Attr) -> AttributeProto:
    match value:
        case Ref():
            kinds = {
                "value_int": AttributeProto.INT,
                "value_float": AttributeProto.FLOAT,
                "value_ints": AttributeProto.INTS,
            }
            return AttributeProto(name=name, ref_attr_name=value.name, type=kinds[value.kind])
        case Graph():
            return helper.make_attribute(name, _graph_proto(value, name))
        case np.ndarray():
            return helper.make_attribute(name, numpy_helper.from_array(value))
        case str() if name == "to":
            return helper.make_attribute(name, ELEMENTS[value])
        case _:
            return helper.make_attribute(name, value)


def _node_proto(node: Node) -> NodeProto:
    proto = helper.make_node(node.op_type, node.inputs, node.outputs)
    proto.attribute.extend(_attribute(name, value) for name, value in node.attributes.items())
    return proto


def opset_of(functions: Iterable[Function]) -> int:
    """The oldest opset that has all their operators."""
    uses_bits = any(n.op_type == "BitCast" for f in functions for n in f.nodes)
    return BITS_OPSET if uses_bits else OPSET


def function_proto(function: Function, opset: int, name: str | None = None) -> FunctionProto:
    """An op's function, under another name where several signatures of the op are needed."""
    return helper.make_function(
        OPS,
        name or function.name,
        function.inputs,
        function.outputs,
        [_node_proto(n) for n in function.nodes],
        [helper.make_opsetid("", opset)],
        function.attributes,
        doc_string=function.signature,
    )


def call_node(op: IRDLOperation, name: str, inputs: Sequence[str], outputs: Sequence[str]):
    """A node that calls the function `name` with the op's attributes."""
    node = helper.make_node(name, inputs, outputs, domain=OPS)
    constants = constants_of(op)
    node.attribute.extend(helper.make_attribute(k, v) for k, v in constants.items())
    return node
